"""The surface L(N, D): known surfaces come back, units do not matter, and bad designs are told."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.scaling.forms import Surface
from evaluation.scaling.parametric import NAMES, bootstrap_surface, fit_surface, floor_check, intervals
from evaluation.scaling.points import points_of
from evaluation.scaling.problem import FitOptions
from evaluation.scaling.published_grid import grid_optimum, grid_starts
from generative.errors import DataError
from tests.support.scaling import HOFFMANN, isoflop_runs

FLAT_IN_N = points_of([1e6, 2e6, 4e6] * 4, np.repeat([1e8, 2e8, 4e8, 8e8], 3), np.repeat([4.0, 3.8, 3.65, 3.55], 3))


def check(fit, name):
    return next(one for one in fit.checks if one.name == name)


@pytest.mark.parametrize("loss", ["huber", "lad", "log_mse", "mse"])
@settings(max_examples=8, deadline=None)
@given(st.floats(0.2, 0.6), st.floats(0.2, 0.6), st.floats(0.5, 2.5))
def test_exact_surfaces_come_back(loss, alpha, beta, floor):
    truth = Surface(E=floor, A=math.exp(17 * alpha), B=math.exp(21 * beta), alpha=alpha, beta=beta)
    fit = fit_surface(isoflop_runs(truth), FitOptions(loss=loss))
    found = fit.surface
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=2e-4)
    assert floor == pytest.approx(found.E, abs=2e-3)
    assert found.optimum(1e20)[0] == pytest.approx(truth.optimum(1e20)[0], rel=2e-3)


@settings(max_examples=10, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-1, 1))
def test_units_change_no_exponent(log_n, log_d, log_l):
    points = isoflop_runs(sigma=0.003)
    n, d, scale = 10**log_n, 10**log_d, 10**log_l
    base = fit_surface(points).surface
    other = fit_surface(points_of(points.N * n, points.D * d, points.loss * scale)).surface
    assert (other.alpha, other.beta) == pytest.approx((base.alpha, base.beta), abs=1e-5)
    expected = Surface(
        base.E * scale, base.A * scale * n**base.alpha, base.B * scale * d**base.beta, base.alpha, base.beta
    )
    assert astuple(other) == pytest.approx(astuple(expected), rel=1e-3)


def test_repeating_a_run_is_a_weight_and_all_weights_together_are_none():
    points = isoflop_runs(sigma=0.01)
    twice = points_of(*(np.append(column, column[:7]) for column in (points.N, points.D, points.loss)))
    weight = np.ones(len(points))
    weight[:7] = 2
    weighted = replace(points, weight=weight * 123.0)
    assert astuple(fit_surface(weighted).surface) == pytest.approx(astuple(fit_surface(twice).surface), rel=1e-5)


def test_absolute_values_ignore_an_outlier_and_squares_do_not():
    points = isoflop_runs()
    loss = points.loss.copy()
    loss[3] *= 1.5
    spoiled = replace(points, loss=loss)
    assert fit_surface(spoiled, FitOptions(loss="lad")).surface.alpha == pytest.approx(0.34, abs=1e-3)
    assert fit_surface(spoiled, FitOptions(loss="huber")).surface.alpha == pytest.approx(0.34, abs=5e-3)
    assert abs(fit_surface(spoiled, FitOptions(loss="log_mse")).surface.beta - 0.28) > 0.01


def test_fixed_floor_and_tied_exponents_hold():
    points = isoflop_runs(sigma=0.003)
    fixed = fit_surface(points, FitOptions(floor=1.69)).surface
    tied = fit_surface(points, FitOptions(tied=True)).surface
    assert pytest.approx(1.69) == fixed.E
    assert tied.alpha == tied.beta
    assert fit_surface(points, FitOptions(floor=0.0)).surface.E < 1e-100


def test_all_starts_end_at_one_optimum_and_the_grid_finds_none_better():
    points = isoflop_runs(sigma=0.003)
    fit = fit_surface(points)
    assert fit.solution.share == 1.0
    assert fit.solution.converged
    grid = grid_optimum(fit.solution.problem, grid_starts()[::400])
    assert fit.solution.objective <= grid.objective * (1 + 1e-9)
    assert 0 < grid.share <= 1
    assert len(grid_starts()) == 4500


def test_good_runs_pass_all_checks():
    fit = fit_surface(isoflop_runs(sigma=0.003))
    assert [one.name for one in fit.checks if not one.ok] == []


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("runs", isoflop_runs(budgets=(1e18, 2e18, 3e18), sizes=3)),
        ("excluded", isoflop_runs().without(np.arange(45) == 0, "diverged")),
        ("bounds", FLAT_IN_N),
    ],
)
def test_what_to_hesitate_at_is_told(name, points):
    fit = fit_surface(points)
    assert not check(fit, name).ok


def test_a_form_that_does_not_fit_leaves_structure():
    bent = fit_surface(isoflop_runs(sigma=0.001), FitOptions(floor=0.0))
    assert "the form does not fit" in check(bent, "residuals").text


def test_sizes_and_lengths_that_vary_together_are_told():
    N = np.geomspace(1e6, 1e9, 12)
    fit = fit_surface(points_of(N, 20 * N, HOFFMANN.loss(N, 20 * N)))
    assert not check(fit, "design").ok


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        (isoflop_runs(budgets=(1e18,), sizes=4), None, "4 runs cannot determine 5 parameters"),
        (points_of([1e6] * 9, np.geomspace(1e8, 1e9, 9), np.linspace(4, 3, 9)), None, "same N"),
        (points_of(np.geomspace(1e8, 1e9, 9), [1e6] * 9, np.linspace(4, 3, 9)), None, "same D"),
        (isoflop_runs(), FitOptions(floor=9.0), "floor 9 is not below"),
    ],
)
def test_designs_that_determine_nothing_are_refused(points, options, words):
    with pytest.raises(DataError, match=words):
        fit_surface(points, options)


def test_intervals_hold_the_truth_and_are_the_same_each_time():
    fit = fit_surface(isoflop_runs(sigma=0.003))
    draws = bootstrap_surface(fit, 300)
    told = intervals(fit, draws, 1e22, level=0.99)
    truth = dict(zip(("N_opt", "D_opt", "L_opt"), HOFFMANN.optimum(1e22), strict=True))
    truth |= {name: getattr(HOFFMANN, name) for name in (*NAMES, "a", "b", "gamma")}
    for name, expected in truth.items():
        assert told[name].low <= expected <= told[name].high, name
        assert told[name].low <= told[name].estimate.value <= told[name].high
    assert intervals(fit, bootstrap_surface(fit, 300), 1e22, level=0.99) == told
    narrow = intervals(fit, draws, 1e22, level=0.8)["a"]
    assert told["a"].low < narrow.low < narrow.high < told["a"].high
    assert floor_check(fit, draws).ok


def test_a_floor_that_is_none_is_told():
    truth = Surface(E=1e-3, A=50.0, B=60.0, alpha=0.15, beta=0.15)
    fit = fit_surface(isoflop_runs(truth, sigma=0.02))
    assert "no floor identified" in floor_check(fit, bootstrap_surface(fit, 200)).text
