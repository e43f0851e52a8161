"""Recalibrated logits are the true log-odds again, whatever scale and offset a discriminator gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from generative.method import Alone, Collectives
from generative.methods.f_distill.calibration import CURVATURES, FITS, Recalibration
from generative.methods.f_distill.config import RatioConfig
from generative.methods.f_distill.divergences import DIVERGENCES
from generative.methods.f_distill.further_config import RecalibrationConfig
from generative.methods.f_distill.ratio import RatioWeights
from tests.generative.methods.f_distill.cases import batch_of, loss_of, method_of, nets_of
from tests.support.ranks import together

EDGES = torch.tensor([1.0], dtype=torch.float64)
DISTORTIONS = torch.tensor([[3.0, 0.7], [0.4, -1.0]], dtype=torch.float64)
"""Scale and offset that spoil the logits of each bin."""


def batch(count: int, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Real N(0.5, 1), fake N(-0.5, 1), of which x is the log-odds; times in both bins; logits spoilt."""
    g = torch.Generator().manual_seed(seed)

    def one(mean: float) -> tuple[Tensor, Tensor]:
        t = 2 * torch.rand(count, generator=g, dtype=torch.float64)
        x = mean + torch.randn(count, generator=g, dtype=torch.float64)
        scale, offset = DISTORTIONS[(t >= 1).long()].unbind(1)
        return scale * x + offset, t

    return one(0.5), one(-0.5), torch.ones(count, dtype=torch.bool)


def followed(updates: int, count: int = 400, **settings: Any) -> tuple[Recalibration, dict[str, Tensor]]:
    fit = Recalibration(RecalibrationConfig(**settings), EDGES)
    state = fit.first()
    for seed in range(updates):
        state = fit.follow(*batch(count, seed), state, Alone())
    return fit, state


def test_true_log_odds_come_back() -> None:
    fit, state = followed(150, memory=0.99)
    wanted = torch.stack([1 / DISTORTIONS[:, 0], -DISTORTIONS[:, 1] / DISTORTIONS[:, 0]], 1)
    torch.testing.assert_close(state[FITS], wanted, rtol=0.06, atol=0.06)
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    for b, t in enumerate((0.3, 1.7)):
        spoilt = DISTORTIONS[b, 0] * x + DISTORTIONS[b, 1]
        torch.testing.assert_close(fit(spoilt, torch.full((3,), t), state), x, rtol=0.1, atol=0.1)


def test_the_fit_is_the_minimum_of_what_is_remembered() -> None:
    """With memory near 1 and equal batches: the minimum of the logistic loss of all of them beside the pull, found
    by an optimiser of torch's."""
    pull, updates = 10.0, 60
    _, state = followed(updates, count=100, memory=1 - 1e-9, prior=pull)
    theta = torch.tensor([[1.0, 0.0]] * 2, dtype=torch.float64, requires_grad=True)
    every = [batch(100, seed) for seed in range(updates)]
    logits = torch.cat([torch.cat([real[0], fake[0]]) for real, fake, _ in every])
    bins = torch.cat([torch.cat([real[1], fake[1]]) for real, fake, _ in every]) >= 1
    labels = torch.cat([torch.cat([torch.ones(100), torch.zeros(100)]) for _ in every]).double()
    optimizer = torch.optim.LBFGS([theta], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        slope, offset = theta[bins.long()].unbind(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(slope * logits + offset, labels, reduction="sum")
        loss = loss + pull / 2 * (theta - torch.tensor([1.0, 0.0])).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    # One step of Newton's method a batch is not exact; what it misses is of the order of 1 / updates.
    torch.testing.assert_close(state[FITS], theta.detach(), rtol=0.05, atol=0.03)


def test_honest_logits_stay_as_they_are() -> None:
    fit = Recalibration(RecalibrationConfig(), EDGES)
    state = fit.first()
    for seed in range(100):
        real, fake, valid = batch(400, seed)
        honest = [((x - DISTORTIONS[(t >= 1).long(), 1]) / DISTORTIONS[(t >= 1).long(), 0], t) for x, t in (real, fake)]
        state = fit.follow(honest[0], honest[1], valid, state, Alone())
    torch.testing.assert_close(state[FITS], torch.tensor([[1.0, 0.0]] * 2).double(), rtol=0, atol=0.05)


def test_what_cannot_be_told_moves_little() -> None:
    """A perfect discriminator, an empty bin, a logit that is not a number, padding."""
    fit, one = Recalibration(RecalibrationConfig(), EDGES), torch.ones(50, dtype=torch.float64)
    t, valid = 0.5 * one, torch.ones(50, dtype=torch.bool)
    state = fit.first()
    for _ in range(200):
        state = fit.follow((10 * one, t), (-10 * one, t), valid, state, Alone())
    assert state[FITS].isfinite().all()
    assert 0.9 < float(state[FITS][0, 0]) < 2.0
    assert torch.equal(state[FITS][1], torch.tensor([1.0, 0.0]).double())
    real, fake, _ = batch(50, 0)
    wild = (torch.cat([real[0], torch.tensor([torch.nan, 1e9]).double()]), torch.cat([real[1], t[:2]]))
    more = (torch.cat([fake[0], torch.tensor([1e9, 1e9]).double()]), torch.cat([fake[1], t[:2]]))
    padded = fit.follow(wild, more, torch.cat([valid, ~valid[:2]]), fit.first(), Alone())
    for key, value in fit.follow(real, fake, valid, fit.first(), Alone()).items():
        torch.testing.assert_close(padded[key], value)


def test_the_slope_stays_positive() -> None:
    """A discriminator that errs every time is flattened, not turned round."""
    fit, one = Recalibration(RecalibrationConfig(prior=1e-3), EDGES), torch.ones(50, dtype=torch.float64)
    state, spread = fit.first(), torch.linspace(0.5, 2, 50, dtype=torch.float64)
    for _ in range(100):
        state = fit.follow((-spread, 0.5 * one), (spread, 0.5 * one), one > 0, state, Alone())
    assert float(state[FITS][0, 0]) == 0.05


def test_ranks_agree() -> None:
    fit = Recalibration(RecalibrationConfig(), EDGES)
    real, fake, valid = batch(40, 1)
    wanted = fit.follow(real, fake, valid, fit.first(), Alone())

    def one(rank: int, collectives: Collectives) -> dict[str, Tensor]:
        rows = slice(0, 25) if rank == 0 else slice(25, 40)
        mine = [(logits[rows], t[rows]) for logits, t in (real, fake)]
        return fit.follow(mine[0], mine[1], valid[rows], fit.first(), collectives)

    for found in together(2, one):
        for key, value in wanted.items():
            torch.testing.assert_close(found[key], value)


def test_weights_are_of_the_corrected_ratios() -> None:
    """Logits of twice the scale with a slope of a half weigh as the honest ones."""
    plain = RatioWeights(RatioConfig(), DIVERGENCES["kl"], EDGES)
    corrected = replace(plain, config=RatioConfig(recalibration=RecalibrationConfig()))
    assert plain.first().keys() == corrected.first().keys() - {FITS, CURVATURES}
    logits, t = torch.randn(20, 2), torch.linspace(0, 2, 20, dtype=torch.float64)
    state = corrected.first() | {FITS: torch.tensor([[0.5, 0.2]] * 2, dtype=torch.float64)}
    everyone = torch.ones(20, dtype=torch.bool)
    found = corrected(2 * logits - 0.4, t, everyone, state, Alone())
    wanted = plain(logits, t, everyone, plain.first(), Alone())
    torch.testing.assert_close(found.h, wanted.h)
    torch.testing.assert_close(found.state["ratio_means"], wanted.state["ratio_means"])
    assert FITS not in found.state


@pytest.mark.parametrize("backbone", ["teacher", "fake", "fake_frozen"])
def test_the_method_follows_with_its_discriminator(backbone: str) -> None:
    method = method_of(backbone=backbone, ratio={"bins": 2, "recalibration": {}})
    judge = next(u for u in method.updates() if u.name in ("discriminator", "critic"))
    assert judge.coupled
    found = loss_of(method, nets_of(method), judge.name, batch_of(6))
    assert found.new_state is not None
    assert found.new_state.keys() == {FITS, CURVATURES}
    assert not torch.equal(found.new_state[FITS], method.state()[FITS])
    assert not any(value.requires_grad for value in found.new_state.values())
    plain = method_of(backbone=backbone)
    assert not any(u.coupled for u in plain.updates() if u.name != "student")
    assert not loss_of(plain, nets_of(plain), judge.name, batch_of(6)).new_state
    # Reverse KL asks for no ratio.
    without = method_of(backbone=backbone, divergence="rkl", ratio={"recalibration": {}})
    assert without.state() == {}
    assert not loss_of(without, nets_of(without), judge.name, batch_of(6)).new_state
