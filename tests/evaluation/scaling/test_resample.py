"""Resampling cells and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.scaling.points import points_of
from evaluation.scaling.resample import resampled
from generative.errors import DataError


def campaign(cells=6, seeds=2, budgets=2):
    rows = cells * seeds
    budget = np.arange(rows) // (rows // budgets) + 1.0
    return points_of(
        np.arange(1.0, rows + 1), np.ones(rows), np.ones(rows), budget=budget, cell=np.arange(rows) // seeds
    )


def test_rows_of_a_cell_stay_together():
    weights, note = resampled(campaign(), 200, 0, 1)
    assert (weights[:, 0::2] == weights[:, 1::2]).all()
    assert (weights.sum(axis=1) == 12).all()
    assert "200 draws of 6 cells" in note


def test_seeds_are_drawn_within_their_cell():
    weights, _ = resampled(campaign(), 200, 0, 3, seeds_too=True)
    assert (weights[:, 0::2] != weights[:, 1::2]).any()
    assert ((weights[:, 0::2] + weights[:, 1::2]) % 2 == 0).all()
    assert (weights.sum(axis=1) == 12).all()


def test_strata_keep_the_number_of_runs_of_each_budget():
    weights, note = resampled(campaign(), 100, 0, 3, strata=True)
    assert (weights[:, :6].sum(axis=1) == 6).all()
    assert "within budgets" in note


def test_degenerate_draws_are_left_out_and_told():
    weights, note = resampled(campaign(cells=4, seeds=1), 300, 0, 3)
    assert ((weights > 0).sum(axis=1) >= 3).all()
    assert f"{300 - len(weights)} degenerate draws left out" in note
    assert len(weights) < 300


def test_too_few_cells_have_no_interval():
    with pytest.raises(DataError, match="too few to resample"):
        resampled(campaign(cells=8, seeds=1), 50, 0, 8)


def test_one_seed_one_answer():
    assert (resampled(campaign(), 50, 7, 3)[0] == resampled(campaign(), 50, 7, 3)[0]).all()
    assert (resampled(campaign(), 50, 7, 3)[0] != resampled(campaign(), 50, 8, 3)[0]).any()
