"""The rows of metrics.jsonl in columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.reporting.values import number

Key = tuple[str, ...]
"""Where a number stood in a JSON row: ("loss", "denoise")."""

Floats = NDArray[np.float64]

MAX_COLUMNS = 200
MAX_BUCKETS = 200


class Table:
    """Rows by step in columns: numbers, and curves (a list of numbers in each row).

    A run that was resumed repeats the steps after its checkpoint. A row whose step is not beyond the last one therefore
    takes back all rows from that step on.
    """

    def __init__(self) -> None:
        self.steps = array("d")
        self._columns: dict[Key, array[float]] = {}
        self._curves: dict[Key, list[array[float] | None]] = {}

    def add(self, row: Mapping[str, Any]) -> bool:
        """Add a row; False where it has no step."""
        step = number(row.get("step"))
        if math.isnan(step):
            return False
        self._take_back(step)
        rows = len(self.steps)
        self.steps.append(step)
        for key, value in _leaves(row):
            if isinstance(value, list):
                _store(self._curves, key, rows, array("f", map(_single, value)), None, list)
            else:
                _store(self._columns, key, rows, number(value), math.nan, _doubles)
        return True

    def _take_back(self, step: float) -> None:
        rows = len(self.steps)
        while rows and self.steps[rows - 1] >= step:
            rows -= 1
        if rows < len(self.steps):
            columns: list[Any] = [self.steps, *self._columns.values(), *self._curves.values()]
            for column in columns:
                del column[rows:]

    def names(self, *prefix: str) -> list[str]:
        """What follows `prefix` in the keys of number columns, in order of appearance: names("loss") -> ["denoise"]."""
        found = (key[len(prefix)] for key in self._columns if key[: len(prefix)] == prefix and len(key) > len(prefix))
        return list(dict.fromkeys(found))

    def curve_keys(self) -> list[Key]:
        """Keys of all curves."""
        return list(self._curves)

    def column(self, *key: str) -> Floats:
        """A number column float64[rows], NaN where a row had none."""
        out = np.full(len(self.steps), np.nan)
        column = self._columns.get(key, array("d"))
        out[: len(column)] = column
        return out

    def series(self, *key: str) -> tuple[Floats, Floats]:
        """(steps, values) of the rows that have a finite number there."""
        values = self.column(*key)
        known = np.isfinite(values)
        return np.asarray(self.steps, dtype=np.float64)[known], values[known]

    def curve(self, key: Key) -> tuple[Floats, Floats]:
        """(steps, values[rows, buckets]) of the rows that have that curve with the most recent number of buckets."""
        kept = [(s, v) for s, v in zip(self.steps, self._curves.get(key, []), strict=False) if v is not None]
        kept = [(s, v) for s, v in kept if len(v) == len(kept[-1][1])]
        return np.array([s for s, _ in kept]), np.array([v for _, v in kept], dtype=np.float64)


def _doubles() -> array[float]:
    return array("d")


def _single(value: Any) -> float:
    """A number that fits 32 bits, else NaN."""
    found = number(value)
    return found if abs(found) < 3e38 else math.nan


def _store(columns: dict[Key, Any], key: Key, row: int, value: Any, missing: Any, empty: Callable[[], Any]) -> None:
    """Put `value` into row `row` of a column, which is made where it is new and filled up where it is short."""
    column = columns.get(key)
    if column is None:
        if len(columns) >= MAX_COLUMNS:
            return
        column = columns[key] = empty()
    if len(column) < row:
        column.extend([missing] * (row - len(column)))
    column.append(value)


def _leaves(row: Mapping[str, Any], prefix: Key = ()) -> list[tuple[Key, Any]]:
    """(key, number or list) of everything in a row, in order. A long run has many rows, so this is kept quick."""
    found: list[tuple[Key, Any]] = []
    for name, value in row.items():
        kind = type(value)
        if kind is float or kind is int:
            found.append(((*prefix, name), value))
        elif kind is dict and len(prefix) < 4:
            found += _leaves(value, (*prefix, name))
        elif kind is list and 0 < len(value) <= MAX_BUCKETS:
            found.append(((*prefix, name), value))
    return found
