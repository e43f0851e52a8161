"""Long series made short for drawing: extremes are kept, means carry the error that follows from the spread."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_POINTS = 2000


def _edges(n: int, count: int) -> Ints:
    """About `count` edges 0 .. n, two thirds of them even and one third logarithmic, which serves a log axis too."""
    even = np.linspace(0, n, max(2, 2 * count // 3))
    early = np.geomspace(1, n, max(2, count // 3))
    return np.unique(np.concatenate([even, early]).astype(np.int64))


def keep_extremes(values: Floats, limit: int = MAX_POINTS) -> Ints:
    """At most `limit` indices, ascending: the smallest and the largest value of each bucket, the first and the last."""
    n = len(values)
    if n <= limit:
        return np.arange(n)
    edges = _edges(n, limit // 2 - 1)
    picks = {0, n - 1}
    for start, stop in pairwise(edges):
        bucket = values[start:stop]
        picks |= {int(start + bucket.argmin()), int(start + bucket.argmax())}
    return np.array(sorted(picks))


def spread_indices(n: int, limit: int) -> Ints:
    """At most `limit` indices of range(n), ascending, dense at the start; the first and the last are among them."""
    return np.arange(n) if n <= limit else np.unique(np.r_[0, np.minimum(_edges(n, limit - 1), n - 1)])


@dataclass(frozen=True)
class Smooth:
    """Moving mean with two standard errors on either side."""

    mean: Floats
    low: Floats
    high: Floats


def smooth(values: Floats) -> Smooth:
    """Centred moving mean; its window is a twenty-fifth of the series, and a third of the way near its start.

    The band is two standard errors of the window's mean. The spread is that of differences between neighbours, halved
    (von Neumann 1941), so that a trend within the window does not count as noise; steps count as independent.
    """
    n = len(values)
    place = np.arange(n)
    half = np.minimum(place // 6, max(2, n // 50))
    start, stop = np.maximum(place - half, 0), np.minimum(place + half + 1, n)
    count = stop - start
    # The spread is taken from a little further around, since the first windows hold a step or two.
    left, right = np.maximum(start - 3, 0), np.minimum(stop + 3, n)
    shift = values.mean() if n else 0.0
    total = np.r_[0.0, np.cumsum(values - shift)]
    mean = shift + (total[stop] - total[start]) / count
    changes = np.r_[0.0, np.cumsum(np.diff(values) ** 2 / 2), 0.0]
    variance = np.maximum(changes[right - 1] - changes[left], 0) / np.maximum(right - left - 1, 1)
    error = 2 * np.sqrt(variance / count)
    return Smooth(mean, mean - error, mean + error)


def value_range(series: list[Floats], tails: float = 0.5) -> tuple[float, float] | None:
    """Range of an axis that leaves out `tails` percent of each series at either end; None without a finite value."""
    finite = [v[np.isfinite(v)] for v in series]
    ends = [np.percentile(v, [tails, 100 - tails]) for v in finite if v.size]
    if not ends:
        return None
    return float(min(e[0] for e in ends)), float(max(e[1] for e in ends))


@dataclass(frozen=True)
class Stage:
    """Mean of a curve over a part of the training, with two standard errors."""

    first_step: float
    last_step: float
    mean: Floats
    low: Floats
    high: Floats


def stages(steps: Floats, curves: Floats, count: int = 5) -> list[Stage]:
    """Cut curves[rows, buckets] into up to `count` parts of equal length and average each over its finite rows."""
    parts = np.array_split(np.arange(len(steps)), min(count, len(steps))) if len(steps) else []
    return [_stage(steps[part], curves[part]) for part in parts]


def _stage(steps: Floats, curves: Floats) -> Stage:
    known = np.isfinite(curves)
    count = known.sum(axis=0)
    filled = np.where(known, curves, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / count
        variance = (np.where(known, curves - mean, 0.0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
        error = 2 * np.sqrt(variance / count)
    return Stage(float(steps[0]), float(steps[-1]), mean, mean - error, mean + error)
