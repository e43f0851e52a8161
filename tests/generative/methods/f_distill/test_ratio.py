"""Ratios and weights against the released code, and what the released code gets wrong."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from generative.method import Alone
from generative.methods.f_distill.config import RatioConfig
from generative.methods.f_distill.divergences import DIVERGENCES
from generative.methods.f_distill.logits import auc_by_time, density_ratio, joint_logit
from generative.methods.f_distill.ratio import RatioWeights
from generative.methods.f_distill.times import TimeGrid
from tests.generative.methods.f_distill.golden import GOLDEN, arrays
from tests.support.ranks import together

CONFIGS = json.loads((GOLDEN / "h_weighting.json").read_text())["configs"]
RELEASED = {"binning": "linear", "minimum_count": 1, "minimum_ess": 0.0}


def released(options: dict) -> RatioWeights:
    config = RatioConfig(
        lower=options["ratio_lower"],
        upper=options["ratio_upper"],
        normalise=options["ratio_normalization"],
        bins=options["bin_num"],
        decay=options["ratio_ema_rate"],
        **RELEASED,
    )
    edges = TimeGrid(options["min_t"], options["max_t"]).linear_edges(config.bins)
    return RatioWeights(config, DIVERGENCES[options["f_div"]], edges)


def simple(name: str = "js", bins: int = 4, **settings: object) -> RatioWeights:
    edges = TimeGrid().quantile_edges(bins)
    return RatioWeights(RatioConfig(bins=bins, **settings), DIVERGENCES[name], edges)


def everyone(logits: Tensor) -> Tensor:
    return torch.ones(len(logits), dtype=torch.bool)


def call(weights: RatioWeights, logits: Tensor, t: Tensor, state: dict[str, Tensor] | None = None):
    return weights(logits, t, everyone(logits), weights.first() if state is None else state, Alone())


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_sequence_of_the_released_code(number: int) -> None:
    golden, weights = arrays("h_weighting"), released(CONFIGS[number])
    state = weights.first()
    for step, (logits, t) in enumerate(zip(golden["logits"], golden["t"], strict=True)):
        found = call(weights, logits, t, state)
        state = found.state
        torch.testing.assert_close(found.h, golden[f"cfg{number}_h"][step], rtol=1e-5, atol=1e-7)
        if weights.config.normalise:
            wanted = golden[f"cfg{number}_bins"][step].double()
            torch.testing.assert_close(state["ratio_means"], wanted, rtol=1e-5, atol=0)
        else:
            assert state.keys() == {"ratio_fallback"}


@pytest.mark.parametrize(("name", "decay"), [("js", 0.0), ("kl", 0.5)])
def test_sequence_of_two_ranks(name: str, decay: float) -> None:
    golden = arrays("h_weighting_2rank")
    options = {"ratio_lower": 0.1, "ratio_upper": 20.0, "ratio_normalization": True, "bin_num": 10}
    weights = released({**options, "ratio_ema_rate": decay, "f_div": name, "min_t": 0.002, "max_t": 80.0})
    states = [weights.first(), weights.first()]
    for step in range(3):

        def one(rank: int, collectives, step: int = step, states: list = states):
            logits = golden["logits"][step, rank]
            return weights(logits, golden["t"][step, rank], everyone(logits), states[rank], collectives)

        found = together(2, one)
        states = [each.state for each in found]
        for rank, each in enumerate(found):
            torch.testing.assert_close(each.h, golden[f"{name}_ema{decay}_h"][step, rank], rtol=1e-5, atol=1e-7)
            wanted = golden[f"{name}_ema{decay}_bins"][step].double()
            torch.testing.assert_close(each.state["ratio_means"], wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_unequal_shares_with_padding_are_one_batch(name: str) -> None:
    draw = torch.Generator().manual_seed(1)
    logits, t = torch.randn(12, 3, generator=draw), TimeGrid().sigmas[torch.randint(0, 1000, (12,), generator=draw)]
    weights = simple(name, minimum_count=2)
    whole = call(weights, logits, t)

    def one(rank: int, collectives):
        mine = slice(0, 8) if rank == 0 else slice(8, 12)
        padding = 8 - (mine.stop - mine.start)
        shown = torch.cat([logits[mine], torch.full((padding, 3), torch.nan)])
        valid = torch.arange(8) < 8 - padding
        times = torch.cat([t[mine], torch.ones(padding, dtype=torch.float64)])
        return weights(shown, times, valid, weights.first(), collectives), valid

    found = together(2, one)
    torch.testing.assert_close(torch.cat([each.h[valid] for each, valid in found]), whole.h)
    for each, _ in found:
        for key, value in whole.state.items():
            torch.testing.assert_close(each.state[key], value)
    for key, metric in whole.metrics.items():
        total, count = (sum(getattr(each.metrics[key], part) for each, _ in found) for part in ("total", "count"))
        torch.testing.assert_close(total, metric.total)
        torch.testing.assert_close(count, metric.count)
    assert whole.h.mean().item() == pytest.approx(1, abs=1e-5)


def test_no_gradient_and_no_change_of_what_is_given() -> None:
    weights = simple()
    logits = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    state = weights.first()
    before = {key: value.clone() for key, value in state.items()}
    found = call(weights, logits, torch.ones(6, dtype=torch.float64), state)
    assert not found.h.requires_grad
    assert all(torch.equal(state[key], value) for key, value in before.items())


def test_reverse_kl_has_no_weights() -> None:
    logits = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    found = call(simple("rkl"), logits, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(found.h, torch.ones(6), rtol=2e-6, atol=0)


def test_a_large_logit_of_a_real_sample_gets_a_large_weight() -> None:
    """r = teacher / student = exp(+l); turned round, js would be the softened reverse KL without anyone noticing."""
    logits = torch.tensor([[-2.0], [2.0]])
    found = call(simple("js", normalise=False), logits, torch.ones(2, dtype=torch.float64))
    wanted = torch.sigmoid(torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(found.h, wanted / wanted.mean(), rtol=1e-5, atol=0)


def test_a_bin_waits_for_enough_samples() -> None:
    """One sample in a bin is not divided by itself; released, four samples in four bins all had weight 1."""
    grid, logits = TimeGrid(), torch.tensor([[2.5], [-2.0], [1.0], [0.0]])
    t = grid.sigmas[[100, 300, 600, 900]]
    as_released = call(simple(decay=0.0, minimum_count=1), logits, t)
    torch.testing.assert_close(as_released.h, torch.ones(4), rtol=1e-5, atol=0)
    weights = simple(decay=0.0, minimum_count=2)
    first = call(weights, logits, t)
    assert first.h.argsort().tolist() == [1, 3, 2, 0]
    assert first.state["ratio_means"].tolist() == [1, 1, 1, 1]
    second = call(weights, torch.zeros(1, 1), t[:1], first.state)
    means = (float(torch.tensor(2.5).exp()) + 1) / 2
    assert second.state["ratio_means"].tolist() == pytest.approx([means, 1, 1, 1], rel=1e-5)
    assert second.state["ratio_counts"].tolist() == [0, 1, 1, 1]


def test_the_means_of_bins_calibrate_ratios() -> None:
    """Logits that are too high by a constant give the same weights, once the bins have settled."""
    draw = torch.Generator().manual_seed(2)
    logits, t = torch.randn(512, 1, generator=draw), TimeGrid().sigmas[torch.randint(0, 1000, (512,), generator=draw)]
    weights = simple("kl", decay=0.0, lower=1e-4, upper=1e4)
    plain, shifted = call(weights, logits, t), call(weights, logits + 1.5, t)
    torch.testing.assert_close(shifted.h, plain.h, rtol=1e-4, atol=0)
    assert float(shifted.metrics["ratio"].total / 512) == pytest.approx(
        float(np.exp(1.5) * plain.metrics["ratio"].total / 512), rel=1e-3
    )


def test_heads() -> None:
    logits = torch.tensor([[0.0, 2.0], [100.0, -100.0], [-100.0, -100.0]])
    geometric = density_ratio(joint_logit(logits, RatioConfig()), RatioConfig())
    assert geometric.tolist() == pytest.approx([float(np.exp(1.0)), 1, 0.1])
    arithmetic = density_ratio(joint_logit(logits, RatioConfig(heads="arithmetic")), RatioConfig())
    assert arithmetic.tolist() == pytest.approx([(1 + float(np.exp(2.0))) / 2, 20, 0.1])


def test_falls_back_where_one_sample_has_all_the_weight(caplog: pytest.LogCaptureFixture) -> None:
    logits = torch.full((400, 1), -8.0)
    logits[0] = 8.0
    t = torch.ones(400, dtype=torch.float64)
    settings = {"lower": 1e-4, "upper": 1e4, "normalise": False}
    with caplog.at_level(logging.WARNING):
        found = call(simple("kl", **settings), logits, t)
    assert float(found.state["ratio_fallback"]) == 1
    assert found.h.tolist() == [1.0] * 400
    assert "effective sample size is 0.0025 of the batch" in caplog.text
    caplog.clear()
    again = call(simple("kl", **settings), logits, t, found.state)
    assert (float(again.state["ratio_fallback"]), caplog.text) == (1, "")  # told once
    assert float(call(simple("kl", **settings), torch.zeros(4, 1), t[:4], again.state).state["ratio_fallback"]) == 0
    assert float(found.metrics["weight_fallback"].total) == 1
    assert not call(simple("kl", minimum_ess=0.0, **settings), logits, t).state["ratio_fallback"]
    assert not call(simple("js"), torch.zeros(4, 1), t[:4]).state["ratio_fallback"]


def test_logits_that_are_not_numbers(caplog: pytest.LogCaptureFixture) -> None:
    weights = simple(minimum_count=1)
    logits = torch.tensor([[1.0], [torch.nan], [2.0]])
    with caplog.at_level(logging.WARNING):
        found = call(weights, logits, torch.ones(3, dtype=torch.float64))
    assert found.h.tolist() == [1, 1, 1]
    assert "1 samples have logits that are not finite" in caplog.text
    assert float(found.state.pop("ratio_fallback")) == 1
    assert all(torch.equal(value, weights.first()[key]) for key, value in found.state.items())


def test_effective_sample_size_of_bins() -> None:
    t = TimeGrid().sigmas[[10, 10, 900, 900]]
    logits = torch.tensor([[0.0], [0.0], [5.0], [-5.0]])
    found = call(simple("kl", bins=4, normalise=False, lower=1e-3, upper=1e3), logits, t)
    ess = found.metrics["ess_by_time"]
    assert ess.count.tolist() == [1, 0, 0, 1]
    assert ess.total.tolist() == pytest.approx([1, 0, 0, 0.5], abs=1e-3)


def test_area_under_the_curve() -> None:
    grid = TimeGrid()
    edges = grid.quantile_edges(2)
    early, late = grid.sigmas[10], grid.sigmas[900]
    real, fake = torch.tensor([[2.0], [0.0], [5.0], [9.0]]), torch.tensor([[1.0], [1.0], [5.0], [0.0]])
    valid = torch.tensor([True, True, True, False])
    t = torch.stack([early, early, late, late])
    found = auc_by_time(real, fake, t, t, edges, valid)
    assert (found.total / found.count).tolist() == [0.5, 0.5]
    assert found.count.tolist() == [4, 1]
