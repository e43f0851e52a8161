"""Samples that are drawn from their numbers (`generative.randomness`), and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.order import Indices

MOST_KEPT = 1 << 20
"""A longer table is not kept: its rows are drawn each time."""


class Drawn:
    """Rows 0 .. size-1, each a function of its number alone. Picklable without the rows that it keeps.

    An epoch asks for all of them in a shuffled order, so all are drawn at the first use: a few microseconds a row once,
    where drawing a batch again in each epoch would cost as much as a small network's step.

    Args:
        size: number of rows.
        draw: rows [B, ...] for numbers int64[B].
    """

    def __init__(self, size: int, draw: Callable[[Indices], NDArray[Any]]) -> None:
        self.size, self.draw = size, draw
        self._rows: NDArray[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    def __getitem__(self, numbers: Indices) -> NDArray[Any]:
        """Rows [B, ...] of numbers int64[B]."""
        if self.size > MOST_KEPT:
            return self.draw(numbers)
        if self._rows is None:
            self._rows = self.draw(np.arange(self.size, dtype=np.int64))
        return self._rows[numbers]
