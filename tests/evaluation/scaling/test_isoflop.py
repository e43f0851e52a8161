"""Best sizes at each budget: bracketed or not, biased or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.scaling.isoflop import find_valley, find_valleys, missing
from evaluation.scaling.isoflop_draws import Resampling
from evaluation.scaling.isoflop_fit import fit_isoflop, parabola_bias
from evaluation.scaling.points import points_of
from evaluation.scaling.valley import ValleyOptions, akima_minimum, fit_parabola
from generative.errors import DataError
from tests.support.scaling import HOFFMANN, isoflop_runs

C = 1e18


def losses(values, sizes=None):
    N = np.geomspace(1e7, 1.6e8, len(values)) if sizes is None else np.asarray(sizes)
    return points_of(N, C / (6 * N), values, C=np.full(len(N), C))


def check(fit, name):
    return next(one for one in fit.checks if one.name == name)


@settings(max_examples=30)
@given(st.floats(14, 20), st.floats(0.01, 1), st.floats(1, 5))
def test_parabola_of_a_parabola(vertex, curvature, height):
    N = np.exp(vertex + np.linspace(-1, 2, 6))
    found = fit_parabola(N, (height + curvature * (np.log(N) - vertex) ** 2)[None], np.ones(6))
    assert (found.vertex[0], found.height[0], found.curvature[0]) == pytest.approx(
        (vertex, height, curvature), rel=1e-5
    )
    np.testing.assert_allclose(found(N)[0], height + curvature * (np.log(N) - vertex) ** 2, rtol=1e-6)


def test_robust_parabola_ignores_an_outlier():
    u = np.linspace(-1, 1, 11)
    y = 3 + u**2
    y[1] += 1
    N, ones = np.exp(15 + u), np.ones(11)
    plain, robust = (fit_parabola(N, y[None], ones, robust=robust).vertex[0] for robust in (False, True))
    assert abs(robust - 15) < 0.1 * abs(plain - 15)


def test_akima_goes_through_its_points():
    u = np.linspace(-1, 1, 9)
    log_N, log_L = akima_minimum(np.exp(15 + u), np.exp(1 + (u - 0.1) ** 2))
    assert log_N == pytest.approx(15.1, abs=0.02)
    assert log_L == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "why", "proposal"),
    [
        ([3.0, 3.1, 3.2, 3.3, 3.4], "smallest size has the lowest", 5e6),
        ([3.4, 3.3, 3.2, 3.1, 3.0], "largest size has the lowest", 3.2e8),
        ([3.4, 3.0, 3.1], "3 sizes, 4 or more", 2 * 10**7 * 2**0.5),
        ([3.0], "1 sizes", 2e7 / 4),
        ([3.2, 3.3, 3.1, 3.3, 3.2], "do not curve upwards", 4e7 / 2**0.5),
    ],
)
def test_what_is_not_bracketed_says_what_to_run(values, why, proposal):
    sizes = (
        [1e7] if len(values) == 1 else 1e7 * 2.0 ** np.arange(len(values)) if len(values) != 3 else [1e7, 4e7, 1.6e8]
    )
    valley = find_valley(losses(values, sizes), C, ValleyOptions())
    assert not valley.bracketed
    assert why in valley.why
    assert valley.proposal is not None
    if len(values) >= 4:
        assert valley.proposal == pytest.approx(proposal, rel=1e-6)
    assert f"add N of about {valley.proposal:.3g}" in missing([valley])[0]


def test_seeds_are_one_size_and_tokens_are_interpolated():
    N = np.repeat(1e7 * 2.0 ** np.arange(5), 2)
    loss = np.repeat([3.3, 3.1, 3.0, 3.1, 3.3], 2) + np.tile([-0.01, 0.01], 5)
    D = 1e8 / N**0.5  # not C / 6N
    valley = find_valley(points_of(N, D, loss, C=np.full(10, C)), C, ValleyOptions())
    assert valley.sizes == 5
    assert valley.bracketed
    assert pytest.approx(4e7) == valley.N
    assert pytest.approx(1e8 / 4e7**0.5) == valley.D
    assert not find_valley(points_of(N[:6], D[:6], loss[:6], C=np.full(6, C)), C, ValleyOptions()).bracketed


def test_runs_are_grouped_by_target_not_by_what_was_achieved():
    points = isoflop_runs()
    achieved = points.C * np.random.default_rng(0).uniform(0.995, 1.005, len(points))
    off = points_of(points.N, points.D, points.loss, C=achieved, budget=points.C)
    assert len(find_valleys(off)) == 5
    assert fit_isoflop(off).N_opt.slope == pytest.approx(HOFFMANN.a, abs=2e-3)


@settings(max_examples=6, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_units_change_no_exponent(log_n, log_c):
    points = isoflop_runs(sigma=0.003)
    base = fit_isoflop(points, resampling=Resampling(draws=3))
    n, c = 10**log_n, 10**log_c
    other = points_of(points.N * n, points.D, points.loss, C=points.C * c)
    found = fit_isoflop(other, resampling=Resampling(draws=3))
    assert found.N_opt.slope == pytest.approx(base.N_opt.slope, abs=1e-6)
    assert found.N_opt(1e20 * c) == pytest.approx(base.N_opt(1e20) * n, rel=1e-5)


def test_unbracketed_budgets_are_left_out_and_named():
    points = isoflop_runs()
    kept = ~((points.budget == 1e17) & (HOFFMANN.optimum(1e17)[0] * 0.9 < points.N))
    fit = fit_isoflop(points.take(kept))
    assert len(fit.bracketed) == 4
    assert "budget 1e+17: not bracketed" in check(fit, "bracketing").text
    assert fit.N_opt.slope == pytest.approx(HOFFMANN.a, abs=1e-6)


def test_wide_or_drifting_sizes_are_told():
    wide = fit_isoflop(isoflop_runs(half_width=30))
    assert not check(wide, "width").ok
    narrow = fit_isoflop(isoflop_runs(half_width=30), ValleyOptions(window=8))
    assert check(narrow, "width").ok
    one, other = isoflop_runs(budgets=(1e18,), shift=0.25), isoflop_runs(budgets=(1e20,), shift=4.0)
    columns = (np.concatenate([getattr(p, name) for p in (one, other)]) for name in ("N", "D", "loss", "C"))
    N, D, loss, compute = columns
    drifting = fit_isoflop(points_of(N, D, loss, C=compute))
    assert not check(drifting, "centring").ok
    _, bias = parabola_bias(HOFFMANN, drifting.points, drifting.valleys, ValleyOptions())
    assert drifting.N_opt.slope - HOFFMANN.a == pytest.approx(bias, abs=1e-6)
    assert abs(bias) > 1e-3
    assert check(fit_isoflop(isoflop_runs()), "centring").ok


def test_too_little_is_refused_with_what_to_run():
    with pytest.raises(DataError, match="0 of 1 budgets") as told:
        fit_isoflop(losses([3.0, 3.1, 3.2, 3.3]))
    assert "add N of about" in told.value.remedy
    with pytest.raises(DataError, match="no residuals"):
        fit_isoflop(isoflop_runs(), ValleyOptions("akima"))


@pytest.mark.parametrize("kind", ["residuals", "cells", "noise"])
def test_intervals_hold_the_truth(kind):
    points = isoflop_runs(sigma=0.003, half_width=4)
    fit = fit_isoflop(points, resampling=Resampling(kind, draws=300, noise=0.003), weigh=kind == "noise")
    low, high = np.quantile(fit.draws[0].slope, [0.005, 0.995])
    assert low < HOFFMANN.a < high
    assert 0.002 < high - low < 0.1


def test_weights_matter():
    points = isoflop_runs(budgets=(1e18, 1e19))
    loss = points.loss.copy()
    loss[2] += 0.5
    spoiled = replace(points, loss=loss)
    weight = np.ones(len(points))
    weight[2] = 1e-9
    off = abs(find_valleys(spoiled)[0].N / find_valleys(points)[0].N - 1)
    assert abs(find_valleys(replace(spoiled, weight=weight))[0].N / find_valleys(points)[0].N - 1) < 0.1 * off
