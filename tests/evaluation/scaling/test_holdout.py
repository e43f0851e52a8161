"""Predictions of runs that a fit has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.scaling.holdout import (
    backtest,
    coverage,
    leave_one_budget_out,
    mean_width,
    surface_forecast,
    worst_error,
)
from generative.errors import DataError
from tests.support.scaling import HOFFMANN, isoflop_runs

RUNS = isoflop_runs(sigma=0.01, sizes=7)
FORECAST = surface_forecast(draws=150)


def test_backtest_predicts_the_largest_budget_from_the_smaller_ones():
    held = backtest(RUNS, FORECAST)
    assert {one.budget for one in held} == {1e21}
    assert worst_error(held).value < 0.05
    first = held[0]
    assert first.error == pytest.approx(first.predicted.estimate.value / first.measured - 1)
    assert "28 runs" in first.predicted.estimate.protocol
    assert HOFFMANN.loss(first.N, first.D) == pytest.approx(first.predicted.estimate.value, rel=0.03)


def test_intervals_of_new_runs_cover_about_what_they_say():
    held = leave_one_budget_out(RUNS, FORECAST)
    assert len(held) == len(RUNS)
    told = coverage(held)
    assert told.n == 5
    assert told.value > 0.8
    assert 0.05 < mean_width(held).value < 0.3
    assert coverage(leave_one_budget_out(RUNS, FORECAST, level=0.3)).value < 0.7


def test_a_wrong_measurement_is_not_covered():
    loss = RUNS.loss.copy()
    loss[RUNS.budget == 1e21] *= 1.2
    held = backtest(type(RUNS)(RUNS.N, RUNS.D, RUNS.C, loss, RUNS.weight, RUNS.budget, RUNS.cell), FORECAST)
    assert coverage(held).value == 0
    assert all(one.error < -0.1 for one in held)


def test_budgets_that_are_too_few_are_refused():
    two = RUNS.take(RUNS.budget <= 1e18)
    with pytest.raises(DataError, match="2 budgets are too few"):
        leave_one_budget_out(two, FORECAST)
    with pytest.raises(DataError, match="100 times smaller"):
        backtest(two, FORECAST, ratio=100)
    assert np.isfinite(backtest(RUNS, FORECAST, ratio=100)[0].width)
