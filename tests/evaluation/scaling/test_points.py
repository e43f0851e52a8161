"""Columns of runs, and what is not a run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.scaling.points import diverged, gather, points_of, seed_noise, without_highest
from generative.errors import DataError

ROW = {"run": "a", "N": 1e6, "D": 1e8, "loss": 3.0}


def test_compute_is_6_n_d_and_each_row_its_own_cell_unless_said_otherwise():
    points = points_of([1e6, 2e6], [1e8, 1e8], [3.0, 2.9])
    assert points.C.tolist() == [6e14, 12e14]
    assert points.budget.tolist() == points.C.tolist()
    assert points.cell.tolist() == [0, 1]
    assert points.weight.tolist() == [1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("name", ["N", "D", "loss", "C"])
def test_numbers_that_cannot_be_are_refused(name, bad):
    columns = {"N": [1e6, 2e6], "D": [1e8, 1e8], "loss": [3.0, 2.9], "C": [6e14, 12e14]} | {name: [1.0, bad]}
    with pytest.raises(DataError, match=f"{name} is .* in row 1"):
        points_of(**columns)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="columns"):
        points_of([1e6, 2e6], [1e8], [3.0, 2.9])
    with pytest.raises(DataError, match="columns"):
        points_of([], [], [])


def test_gather_keeps_reasons_of_what_it_leaves_out():
    points = gather(
        [
            ROW,
            ROW | {"run": "b", "loss": math.nan},
            ROW | {"run": "c", "status": "diverged"},
            ROW | {"run": "d", "loss": None},
            ROW | {"run": "e", "N": 2e6, "budget": 7e14},
        ]
    )
    assert len(points) == 2
    assert points.budget.tolist() == [6e14, 7e14]
    assert [(one.run, one.why) for one in points.excluded] == [
        ("b", "loss is nan"),
        ("c", "diverged"),
        ("d", "loss is None"),
    ]


def test_gather_refuses_duplicates_and_emptiness():
    with pytest.raises(DataError, match="'a' and 'b' are the same cell"):
        gather([ROW | {"cell": "x", "seed": 0}, ROW | {"run": "b", "cell": "x", "seed": 0}])
    with pytest.raises(DataError, match="a: failed"):
        gather([ROW | {"status": "failed"}])


def test_seeds_share_a_cell():
    points = gather([ROW | {"run": f"r{seed}", "cell": "x", "seed": seed} for seed in (0, 1)] + [ROW | {"run": "y"}])
    assert points.cell[0] == points.cell[1] != points.cell[2]


def test_taking_and_leaving_rows():
    points = points_of([1e6, 2e6, 3e6], [1e8, 1e8, 1e8], [3.0, 2.9, 2.8])
    rest = points.without(np.array([True, False, False]), "because")
    assert rest.N.tolist() == [2e6, 3e6]
    assert [one.why for one in rest.excluded] == ["because"]
    assert without_highest(points, 2).loss.tolist() == [2.8]
    assert len(without_highest(points, 2).excluded) == 2


@pytest.mark.parametrize(
    ("curve", "astray"),
    [
        ([5.0] * 10 + [2.0] * 200, False),
        ([2.0] + [4.1] * 100, True),
        ([2.0] + [4.1] * 99, False),
        ([2.0] + [4.1] * 60 + [2.0] + [4.1] * 60, False),
        ([2.0, math.nan, 2.0], True),
        ([2.0, math.inf], True),
        ([], False),
    ],
)
def test_divergence_is_a_lasting_rise_or_a_number_that_is_none(curve, astray):
    assert diverged(curve) == astray


def test_noise_between_seeds_is_pooled_over_cells():
    cells = {"x": [2.0, 2.0 * np.exp(0.2)], "y": [3.0, 3.0 * np.exp(0.1), 3.0 * np.exp(0.2)], "z": [1.0]}
    rows = [
        ROW | {"run": f"{cell}{seed}", "cell": cell, "seed": seed, "loss": loss}
        for cell, losses in cells.items()
        for seed, loss in enumerate(losses)
    ]
    spread, freedom = seed_noise(gather(rows))
    assert (spread, freedom) == (pytest.approx(np.sqrt((0.02 + 0.02) / 3)), 3)
    assert seed_noise(gather(rows[-1:])) is None
