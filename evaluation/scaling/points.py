"""Finished runs as columns: what fits read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from generative.errors import DataError

Floats = NDArray[np.float64]

DONE = "done"


@dataclass(frozen=True)
class Exclusion:
    """A run that no fit sees.

    Args:
        run: its name.
        why: in a few words.
    """

    run: str
    why: str


@dataclass(frozen=True)
class Points:
    """One measured loss a row.

    Args:
        N: float64[n], parameters, in one convention for all rows.
        D: float64[n], tokens trained on.
        C: float64[n], training FLOPs as achieved.
        loss: float64[n], nats per token.
        weight: float64[n], of the row in fits, such as 1 / (se^2 + seed^2); 1 where nothing is known.
        budget: float64[n], FLOPs that the run aimed at: rows are grouped by it, never by what was achieved.
        cell: int64[n], the same number for rows that are not independent: seeds of a cell, checkpoints of a run.
        excluded: runs left out, with the reason.
    """

    N: Floats
    D: Floats
    C: Floats
    loss: Floats
    weight: Floats
    budget: Floats
    cell: NDArray[np.int64]
    excluded: tuple[Exclusion, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, rows: ArrayLike) -> Points:
        """Some rows, by mask or by number."""
        index = np.asarray(rows)
        columns = (field.name for field in fields(self) if field.name != "excluded")
        return replace(self, **{name: getattr(self, name)[index] for name in columns})

    def without(self, rows: NDArray[np.bool_], why: str) -> Points:
        """The other rows; what is left out is on record."""
        gone = tuple(Exclusion(f"N={n:.4g} D={d:.4g}", why) for n, d in zip(self.N[rows], self.D[rows], strict=True))
        return replace(self.take(~rows), excluded=self.excluded + gone)

    @property
    def k(self) -> float:
        """C / (N D), the median: 6 where the convention of FLOPs is that of N."""
        return float(np.median(self.C / (self.N * self.D)))

    def budgets(self) -> Floats:
        """The budgets, ascending."""
        return np.unique(self.budget)


def points_of(
    N: ArrayLike,
    D: ArrayLike,
    loss: ArrayLike,
    *,
    C: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    budget: ArrayLike | None = None,
    cell: ArrayLike | None = None,
) -> Points:
    """Columns, checked. Without C: 6 N D; without a budget: C; without cells: each row is its own.

    Raises:
        DataError: no rows, columns of unequal length, or a number that is not finite and positive (where C overflowed
            an integer, for one).
    """
    columns = {"N": _column(N), "D": _column(D), "loss": _column(loss)}
    columns["C"] = 6 * columns["N"] * columns["D"] if C is None else _column(C)
    columns["weight"] = np.ones(len(columns["loss"])) if weight is None else _column(weight)
    columns["budget"] = columns["C"] if budget is None else _column(budget)
    cells = np.arange(len(columns["loss"])) if cell is None else np.unique(np.asarray(cell), return_inverse=True)[1]
    lengths = {name: len(column) for name, column in columns.items()} | {"cell": len(cells)}
    if len(set(lengths.values())) > 1 or not lengths["loss"]:
        raise DataError(
            f"columns of a scaling fit have {lengths} rows",
            expected="one row or more, and the same number in each column",
            remedy="give N, D and the loss of each run",
        )
    for name, column in columns.items():
        bad = np.flatnonzero(~(np.isfinite(column) & (column > 0)))
        if bad.size:
            raise DataError(
                f"{name} is {column[bad[0]]:g} in row {bad[0]} (and {bad.size - 1} other rows are unusable)",
                expected="finite numbers above 0",
                remedy="leave diverged and damaged runs out (`gather` does, and keeps the reason)",
            )
    return Points(cell=cells.ravel().astype(np.int64), excluded=(), **columns)


def _column(values: ArrayLike) -> Floats:
    return np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()


def gather(rows: Iterable[Mapping[str, Any]]) -> Points:
    """Points of a campaign's rows; unusable ones become exclusions instead of points.

    Args:
        rows: mappings with `run`, `N`, `D`, `loss`, and optionally `C`, `weight`, `budget`, `cell` (a name), `seed` and
            `status` ("done" where it is missing).

    Raises:
        DataError: nothing usable is left, or one cell and seed occur twice.
    """
    kept: list[Mapping[str, Any]] = []
    excluded: list[Exclusion] = []
    seen: dict[tuple[Any, Any], str] = {}
    for row in rows:
        why = _unusable(row)
        name = str(row.get("run", "?"))
        if why:
            excluded.append(Exclusion(name, why))
            continue
        key = (row.get("cell", name), row.get("seed"))
        if key in seen:
            raise DataError(
                f"runs {seen[key]!r} and {name!r} are the same cell and seed {key}",
                expected="one result for each cell and seed",
                remedy="remove one of them, or give repeats different seeds",
            )
        seen[key] = name
        kept.append(row)
    if not kept:
        reasons = "; ".join(f"{one.run}: {one.why}" for one in excluded[:5]) or "there are no rows"
        raise DataError(
            f"no usable runs ({reasons})",
            expected="finished runs with a finite loss",
            remedy="wait until cells are done, or look at why they failed",
        )
    N, D, loss = (_column([row[name] for row in kept]) for name in ("N", "D", "loss"))
    C = _column([row.get("C") or 6.0 * row["N"] * row["D"] for row in kept])
    points = points_of(
        N,
        D,
        loss,
        C=C,
        weight=[row.get("weight") or 1.0 for row in kept],
        budget=[row.get("budget") or c for row, c in zip(kept, C, strict=True)],
        cell=[str(row.get("cell", row.get("run", i))) for i, row in enumerate(kept)],
    )
    return replace(points, excluded=tuple(excluded))


def _unusable(row: Mapping[str, Any]) -> str:
    """Why a row cannot be fitted, or nothing."""
    status = row.get("status", DONE)
    if status != DONE:
        return str(status)
    for name in ("N", "D", "loss"):
        value = row.get(name)
        if value is None or not math.isfinite(value) or value <= 0:
            return f"{name} is {value}"
    return ""


def diverged(losses: Sequence[float] | ArrayLike, factor: float = 2.0, patience: int = 100) -> bool:
    """Whether a curve went astray: not finite anywhere, or above `factor` x its running minimum for `patience` logs."""
    curve = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(curve).all():
        return True
    above = curve > factor * np.minimum.accumulate(curve) if curve.size else np.zeros(0, dtype=bool)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    return bool((ends[1::2] - ends[::2] >= patience).any())


def seed_noise(points: Points) -> tuple[float, int] | None:
    """(standard deviation of log loss between runs of a cell, degrees of freedom), pooled; None without repeats.

    Noise of evaluation is not in it where all cells are measured on the same windows and masks: it is common to all.
    """
    log_loss, squares, freedom = np.log(points.loss), 0.0, 0
    for cell in np.unique(points.cell):
        own = log_loss[points.cell == cell]
        squares += float(((own - own.mean()) ** 2).sum())
        freedom += len(own) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else None


def without_highest(points: Points, dropped: int) -> Points:
    """Leave out the rows with the `dropped` highest losses (Besiroglu et al. 2024 leave out five); it is on record."""
    if not dropped:
        return points
    limit = np.sort(points.loss)[-dropped]
    return points.without(points.loss >= limit, f"one of the {dropped} highest losses")
