"""The best loss of the largest budget, by the law that was right before."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.scaling.best_loss import MINIMA, SURFACE, best_loss, best_loss_ahead, trial
from evaluation.scaling.forms import Surface
from evaluation.scaling.points import points_of
from generative.errors import DataError

TRUTH = Surface(E=0.4, A=40.0, B=80.0, alpha=0.4, beta=0.35)
BUDGETS = (1e12, 3e12, 1e13, 3e13, 1e14)


def runs(bend=0.0, budgets=BUDGETS, sizes=7):
    """On a surface; `bend` raises the loss of sizes off the optimum by so much at 1 e-fold, more at small budgets."""
    C = np.repeat(budgets, sizes)
    off = np.tile(np.linspace(-1.5, 1.5, sizes), len(budgets))
    N = TRUTH.optimum(C)[0] * np.exp(off)
    loss = TRUTH.loss(N, C / (6 * N)) * (1 + bend * np.abs(off) ** 2 * (1e12 / C) ** 0.3)
    return points_of(N, C / (6 * N), loss, budget=C)


def test_the_surface_is_chosen_where_there_is_one():
    told = best_loss_ahead(runs(), draws=50)
    assert told.by == SURFACE
    assert abs(told.tried[SURFACE]) < 1e-3 < abs(told.tried[MINIMA])
    assert told.predicted.estimate.value == pytest.approx(float(TRUTH.optimum(1e14)[2]), rel=1e-3)
    assert told.measured == pytest.approx(float(TRUTH.optimum(1e14)[2]), rel=2e-3)
    assert abs(told.error) < 3e-3


def test_the_line_is_chosen_where_sizes_off_the_optimum_bend_the_surface():
    points = runs(bend=0.3)
    told = best_loss_ahead(points, draws=50)
    assert told.by == MINIMA
    assert abs(told.tried[MINIMA]) < abs(told.tried[SURFACE])
    assert told.width > 0
    assert told.covered == (told.predicted.low <= told.measured <= told.predicted.high)


def test_the_choice_sees_nothing_of_the_largest_budget():
    points = runs()
    spoilt = np.where(points.budget == 1e14, points.loss * 1.3, points.loss)
    told, other = (
        best_loss_ahead(points_of(points.N, points.D, loss, budget=points.budget), draws=30)
        for loss in (points.loss, spoilt)
    )
    assert (told.by, told.tried) == (other.by, other.tried)
    assert told.predicted.estimate.value == other.predicted.estimate.value
    assert other.measured == pytest.approx(1.3 * told.measured)


def test_too_few_budgets_and_minima_that_are_not_bracketed():
    assert trial(runs(budgets=BUDGETS[:2])) == {}
    with pytest.raises(DataError, match="none to predict"):
        best_loss_ahead(runs(budgets=BUDGETS[:2]))
    points = runs(budgets=BUDGETS[:1])
    limit = 1.2 * TRUTH.optimum(1e12)[0]
    larger = points.take(limit < points.N)
    assert best_loss(larger, 1e12) == larger.loss.min()
