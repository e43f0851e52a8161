"""The released code's moving average of weights, whose rate rises at the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor


def warmed_rate(rate: float, updates: int) -> float:
    """min(rate, (1 + n) / (10 + n)) at the n-th update, n = 1, 2, ..."""
    return min(rate, (1 + updates) / (10 + updates))


def averages(weights: Iterable[Tensor], rate: float) -> Iterator[Tensor]:
    """The average after each update, for the first weights and those after updates 1, 2, ...

    average <- average - (1 - warmed rate) (average - weights), starting from the first weights.
    """
    updated = iter(weights)
    average = next(updated).clone()
    for count, weight in enumerate(updated, start=1):
        average = average - (1 - warmed_rate(rate, count)) * (average - weight)
        yield average
