"""Comparison of two families, and predictions from a budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scaling.gap import Frontier, compute_gap, frontier_of, gap_of_lines
from evaluation.scaling.isoflop_fit import fit_isoflop
from evaluation.scaling.lines import Line, fit_line
from evaluation.scaling.parametric import bootstrap_surface, fit_surface
from evaluation.scaling.points import points_of
from evaluation.scaling.predict import predict_isoflop, predict_surface
from evaluation.scaling.saturating import fit_power
from generative.errors import ConfigError, DataError
from tests.support.scaling import HOFFMANN, isoflop_runs

C = np.geomspace(1e17, 1e19, 5)


def slower(factor, sigma=0.0, seed=1):
    """Runs of a family that needs `factor` times the compute of HOFFMANN's for the same loss."""
    points = isoflop_runs(budgets=tuple(C), sigma=sigma, seed=seed, half_width=4)
    return points_of(points.N, points.D, points.loss, C=points.C * factor)


@given(st.floats(0.05, 0.3), st.floats(1.5, 50), st.floats(-3, 3))
def test_a_constant_gap_is_found_in_any_unit(slope, factor, log_unit):
    fast = Frontier("fast", C, 3 * (C / 1e18) ** -slope)
    slow = Frontier("slow", C * 10**log_unit, 3 * (C / factor / 1e18) ** -slope)
    fast_too = Frontier("fast", C * 10**log_unit, fast.loss)
    found = compute_gap(slow, fast_too)
    assert found.factor.value == pytest.approx(factor)
    np.testing.assert_allclose(found.factors, factor)
    lines = (fit_line(C, slow.loss), fast.line)
    np.testing.assert_allclose(gap_of_lines(*lines, C), factor)


def test_interval_of_a_gap():
    slow, fast = (
        frontier_of(name, fit_isoflop(points))
        for name, points in (("slow", slower(8.0, 0.003, 1)), ("fast", slower(1.0, 0.003, 2)))
    )
    found = compute_gap(slow, fast)
    assert found.interval is not None
    assert found.interval.low < 8 < found.interval.high
    assert found.interval.high / found.interval.low < 2
    assert "both families" in found.factor.protocol
    assert "[" in str(found)


def test_losses_that_do_not_overlap_bound_the_gap():
    fast = Frontier("fast", C, np.linspace(3.0, 2.5, 5))
    slow = Frontier("slow", C, np.linspace(4.0, 3.2, 5))
    found = compute_gap(slow, fast)
    assert found.factor.bound == "lower"
    assert found.factor.value == pytest.approx(100)
    assert found.interval is None
    assert str(found).startswith(">= 100 (lower bound")
    assert not found.checks[0].ok


def test_families_that_cannot_be_compared_are_refused():
    fast, slow = Frontier("fast", C, np.linspace(3.0, 2.5, 5)), Frontier("slow", C, np.linspace(4.0, 3.2, 5))
    with pytest.raises(DataError, match="wrong order"):
        compute_gap(fast, slow)
    with pytest.raises(DataError, match="slow: 1 budgets"):
        compute_gap(Frontier("slow", C[:1], np.array([3.0])), fast)
    with pytest.raises(DataError, match="rises: 5 budgets"):
        compute_gap(Frontier("rises", C, np.linspace(2.0, 3.0, 5)), fast)


def test_prediction_by_the_surface():
    fit = fit_surface(isoflop_runs(sigma=0.003))
    told = predict_surface(fit, bootstrap_surface(fit, 300), 1e22)
    N, D, loss = HOFFMANN.optimum(1e22)
    for interval, expected in ((told.N, N), (told.D, D), (told.loss, loss), (told.run, loss)):
        assert interval.low <= interval.estimate.value <= interval.high
        assert interval.low * 0.98 <= expected <= interval.high * 1.02
    assert told.N.estimate.value * told.D.estimate.value * 6 == pytest.approx(1e22)
    assert told.run.high - told.run.low > told.loss.high - told.loss.low
    assert told.checks[-1].name == "extrapolation"
    assert told.checks[-1].ok
    assert not predict_surface(fit, bootstrap_surface(fit, 20), 1e23).checks[-1].ok


def test_prediction_by_the_minima_with_and_without_a_floor():
    fit = fit_isoflop(isoflop_runs(sigma=0.003, half_width=4))
    good = fit.bracketed
    floor = fit_power(np.array([one.achieved for one in good]), np.array([one.loss for one in good]), draws=100)
    truth = HOFFMANN.optimum(1e22)
    straight, bent = predict_isoflop(fit, 1e22), predict_isoflop(fit, 1e22, law=floor)
    assert bent.loss.estimate.value == pytest.approx(truth[2], rel=0.03)
    assert straight.loss.estimate.value < truth[2]  # a law without a floor promises too much
    assert bent.N.estimate.value == pytest.approx(truth[0], rel=0.2)
    assert straight.run.high - straight.run.low >= straight.loss.high - straight.loss.low


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_impossible_budgets_are_refused(bad):
    fit = fit_isoflop(isoflop_runs())
    with pytest.raises(ConfigError, match="cannot be spent"):
        predict_isoflop(fit, bad)


def test_lines_and_missing_values():
    x = np.geomspace(1, 100, 5)
    line = fit_line(x, 2 * x**0.5)
    assert (line.slope, math.exp(line.intercept)) == (pytest.approx(0.5), pytest.approx(2))
    assert line.inverse(line(7.0)) == pytest.approx(7.0)
    rows = np.stack([2 * x**0.5, 3 * x**-1.0])
    rows[0, 2], rows[1, :4] = math.nan, math.nan
    several = fit_line(x, rows)
    assert several.slope[0] == pytest.approx(0.5)
    assert math.isnan(several.slope[1])
    weighted = fit_line(x, np.array([1.0, 1.0, 1.0, 1.0, 9.0]), np.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    assert weighted == Line(pytest.approx(0.0, abs=1e-12), pytest.approx(0.0, abs=1e-12))
