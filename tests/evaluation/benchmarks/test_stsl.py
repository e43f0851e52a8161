"""T11 on small numbers, and that the parts of the benchmark of posterior samplers measure what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evaluation.benchmarks import stsl_digits, stsl_exact, stsl_speed
from evaluation.benchmarks.stsl_exact import Size, cases, compare, contenders, floor, sliced_w2
from generative.methods.stsl.levels import linear_alphas
from generative.methods.stsl.methods import METHODS
from generative.methods.stsl.sampler import update
from generative.methods.stsl.surrogate import Terms
from tests.generative.methods.stsl.golden import Toy


def test_problems_are_those_recorded() -> None:
    for case in cases(("gauss4", "gmm2", "ring2", "gmm8")):
        toy = Toy(case.name, 100)
        for a, b in (
            (case.mixture.weights, toy.mixture.weights),
            (case.mixture.means, toy.mixture.means),
            (case.mixture.covariances, toy.mixture.covariances),
            (case.matrix, toy.matrix),
        ):
            assert torch.equal(a, b)
        assert case.sigma == toy.sigma


def test_posteriors_are_those_of_sampling() -> None:
    """Mean and covariance of the closed form against weighted samples of the prior."""
    (case,) = cases(("gmm2",))
    y = case.measurements(1)[0]
    points = case.mixture.sample(400_000, torch.Generator().manual_seed(0))
    weights = (-(y - points @ case.matrix.T).square().sum(1) / (2 * case.sigma**2)).softmax(0)
    posterior = case.mixture.posterior(case.matrix, y, case.sigma)
    mean = weights @ points
    torch.testing.assert_close(mean, posterior.mean, atol=0.02, rtol=0)
    apart = points - mean
    torch.testing.assert_close((weights[:, None] * apart).T @ apart, posterior.covariance, atol=0.03, rtol=0.03)


def test_sliced_distance() -> None:
    a = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert sliced_w2(a, a[torch.randperm(200)]) < 1e-12
    shift = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64)
    # the mean square of a direction's first part is 1/3
    assert abs(sliced_w2(a, a + shift) - math.sqrt(3)) < 0.35


@pytest.mark.parametrize("name", ["gauss4", "gmm2"])
def test_dps_stays_as_far_as_it_is(name) -> None:
    """T11: between 0.12 and 0.25 at its best weight (here 0.03 more or less, of few chains): farther is a fault."""
    (case,) = cases((name,))
    size = Size((name,), 2, 200)
    contender = contenders(case, size)["dps"]
    found, _ = compare(case, size, replace(contender, weights=contender.weights[1:4]))
    assert 0.09 <= sum(one.distance for one in found) / 2 <= 0.28


@pytest.mark.parametrize("name", ["gauss4", "gmm2"])
def test_guidance_reaches_the_exact_posterior(name) -> None:
    """T11: exact within 1.3 floor + 0.03, covariance-aware within 0.14 (here of 300 chains of one measurement)."""
    size = replace(Size((name,), 1, 300), steps=50)
    (case,) = cases((name,))
    least = sum(floor(case, replace(size, measurements=6))) / 6
    known = contenders(case, size)
    found, _ = compare(case, size, known["exact"])
    assert found[0].distance <= 1.3 * least + 0.03 + 0.03
    assert 0.7 < found[0].variance_ratio < 1.3
    found, _ = compare(case, size, known["mmps"])
    assert found[0].distance <= 0.14 + 0.03


def test_tuning_takes_the_best_weight() -> None:
    (case,) = cases(("gauss4",))
    size = Size(("gauss4",), 1, 50, 10, 2)
    contender = contenders(case, size)["dps"]
    found, weight = compare(case, size, contender)
    alone = {w: compare(case, size, replace(contender, weights=(w,)))[0][0].distance for w in contender.weights}
    assert found[0].distance == min(alone.values())
    assert alone[weight] == found[0].distance


def test_both_updates_of_the_timing_are_one() -> None:
    for make in (stsl_speed.ResidualMlp, stsl_speed.ConvNet):
        torch.manual_seed(0)
        asked = stsl_speed.problem(make(), 3)
        level, terms = asked.prior.levels(50)[25], Terms(weight=0.3, eta=3.0)
        z = asked.draws("z", 0, (64,))
        apart = stsl_speed.apart(asked, z, level, terms, 0)
        assert (asked.cost.rows, asked.cost.vjps) == (9, 6)
        fused = update(asked, z, level, terms, 0)[0]
        assert (asked.cost.rows, asked.cost.vjps) == (15, 9)
        torch.testing.assert_close(fused, apart, rtol=1e-4, atol=1e-5)


def test_every_entry_has_equal_trials_and_its_rows() -> None:
    known = stsl_digits.entries(stsl_digits.Size())
    untuned = known.pop("stsl_default")
    assert [untuned.at(weight) for weight in untuned.weights] == [METHODS["stsl"].settings]
    assert not untuned.ours
    assert {len(entry.weights) for entry in known.values()} == {3}
    for name, entry in known.items():
        assert entry.method in METHODS
        assert entry.at(entry.weights[0]) != entry.at(entry.weights[1]), name
        if entry.method in ("stsl", "first_order"):
            settings = entry.at(0.1)
            rows = settings.steps * (settings.inner * (2 if settings.terms.eta else 1) + 1)
            assert name.endswith(str(rows)), (name, rows)


def test_the_ratio_of_rows_and_when_there_is_none() -> None:
    known = stsl_digits.entries(stsl_digits.Size())
    one = torch.ones(4, dtype=torch.float64)

    def judged(accuracy: float, distance: float, rows: float) -> stsl_digits.Judged:
        cost = {"rows": rows, "vjps": 1.0}
        return stsl_digits.Judged(one, one, accuracy * one, distance * one, one, one, one, cost)

    found = {"psld": judged(0.9, 1.0, 1000), "stsl_225": judged(0.895, 1.01, 225), "stsl_550": judged(0.95, 0.9, 550)}
    assert stsl_digits._ratio(found, known, "psld")["value"] == pytest.approx(0.225)
    found["p2l_style"] = judged(0.95, 0.9, 1000)
    against = stsl_digits._ratio(found, known, "p2l_style")
    assert (against["value"], against["goal"]) == (pytest.approx(0.55), "<= 0.125")
    found = {"psld": judged(0.9, 1.0, 1000), "stsl_225": judged(0.88, 0.9, 225), "mmps": judged(1.0, 0.1, 50)}
    assert math.isnan(stsl_digits._ratio(found, known, "psld")["value"])


def test_a_quick_run_gives_all_figures() -> None:
    told = stsl_exact.run(True)
    assert {"mmps_w2_gauss4", "mmps_w2_gmm2", "exact_w2_gauss4", "stsl_unit_variance_gmm2"} <= set(told)
    assert told["mmps_w2_gmm2"]["goal"] == "<= 0.14"
    assert linear_alphas()[0] < 1
