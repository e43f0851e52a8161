"""Bootstrap weights: how often each run occurs in resampled campaigns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.scaling.points import Floats, Points
from generative.errors import DataError


def resampled(
    points: Points, draws: int, seed: int, distinct: int, *, strata: bool = False, seeds_too: bool = False
) -> tuple[Floats, str]:
    """Counts of each row in resampled sets of cells, float64[R, n], and how they were drawn.

    Args:
        points: the runs.
        draws: resampled sets asked for.
        seed: of the generator.
        distinct: sets with fewer different cells determine no fit and are left out (R is then below `draws`).
        strata: draw within each budget, so that none is emptied.
        seeds_too: draw the rows within each drawn cell again.

    Raises:
        DataError: not one set in ten has enough different cells.
    """
    generator = np.random.default_rng(seed)
    cells, of_row = np.unique(points.cell, return_inverse=True)
    counts = np.zeros((draws, len(cells)))
    for group in _strata(points, of_row) if strata else [np.arange(len(cells))]:
        chosen = generator.integers(0, len(group), (draws, len(group)))
        for row, picked in enumerate(chosen):
            counts[row, group] += np.bincount(picked, minlength=len(group))
    kept = (counts > 0).sum(axis=1) >= min(distinct, len(cells))
    if kept.mean() < 0.1:
        raise DataError(
            f"{len(cells)} independent cells are too few to resample {distinct} parameters",
            expected=f"about {2 * distinct} cells or more",
            remedy="finish more cells; without them there is no interval",
        )
    weights = counts[kept][:, of_row]
    if seeds_too:
        weights = _within(weights, of_row, generator)
    lost = int((~kept).sum())
    unit = "cells" if len(cells) < len(points) else "runs"
    note = f"bootstrap interval, {len(weights)} draws of {len(cells)} {unit}{' within budgets' if strata else ''}"
    return weights, note + (f", {lost} degenerate draws left out" if lost else "")


def _strata(points: Points, of_row: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cells of each budget; a cell belongs to that of its first row."""
    first = np.unique(of_row, return_index=True)[1]
    budgets = points.budget[first]
    return [np.flatnonzero(budgets == budget) for budget in np.unique(budgets)]


def _within(weights: Floats, of_row: NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Of each drawn cell as many rows as it has, drawn again among themselves."""
    out = weights.copy()
    for cell in np.unique(of_row):
        rows = np.flatnonzero(of_row == cell)
        if len(rows) > 1:
            copies = weights[:, rows[0]].astype(np.int64)
            out[:, rows] = generator.multinomial(copies * len(rows), np.full(len(rows), 1 / len(rows)))
    return out
