"""Approach 1 of Hoffmann et al. 2022: the lower envelope of training curves over compute.

Valid only where intermediate points are as good as finished runs: constant learning rates, and WSD before its decay. A
curve under a cosine is too high until its end, which moves the envelope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.scaling.checks import Check, check_runs
from evaluation.scaling.lines import Line, fit_line
from evaluation.scaling.points import Floats, diverged
from generative.errors import DataError

FLAT_SCHEDULES = ("constant", "wsd")


@dataclass(frozen=True)
class Curve:
    """One run's training losses.

    Args:
        N: parameters.
        C: float64[k], FLOPs at each log, ascending.
        D: float64[k], tokens at each log.
        loss: float64[k], mean over the steps since the log before.
        schedule: of the learning rate.
        run: its name.
    """

    N: float
    C: Floats
    D: Floats
    loss: Floats
    schedule: str
    run: str = ""


@dataclass(frozen=True)
class Envelope:
    """The best curve at each compute.

    Args:
        C: float64[m], log-spaced.
        loss: float64[m].
        N: float64[m], size of the best curve.
        D: float64[m], its tokens there.
        inner: bool[m], best size is neither the smallest nor the largest that has a curve there.
        N_opt: line through the inner points.
        D_opt: line through the inner points.
        checks: what to know before trusting it.
    """

    C: Floats
    loss: Floats
    N: Floats
    D: Floats
    inner: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    N_opt: Line
    D_opt: Line
    checks: tuple[Check, ...]


def smooth_proportional(steps: Floats, loss: Floats, share: float = 0.05) -> Floats:
    """Mean of the logs within +- share / 2 of each step's own number (Porian et al. 2024): wider later in training."""
    total = np.concatenate([[0.0], np.cumsum(loss)])
    first = np.searchsorted(steps, steps * (1 - share / 2), side="left")
    last = np.searchsorted(steps, steps * (1 + share / 2), side="right")
    mean: Floats = (total[last] - total[first]) / (last - first)
    return mean


def smooth_gaussian(loss: Floats, width: float = 10.0) -> Floats:
    """Gaussian of `width` logs (Hoffmann et al. 2022), renormalised at the ends."""
    reach = np.arange(-int(4 * width), int(4 * width) + 1)
    kernel = np.exp(-0.5 * (reach / width) ** 2)
    padded = np.pad(loss, len(reach) // 2), np.pad(np.ones_like(loss), len(reach) // 2)
    sums, weights = (np.convolve(one, kernel, mode="valid") for one in padded)
    mean: Floats = sums / weights
    return mean


def prepared(curve: Curve, share: float = 0.05) -> Curve:
    """Smoothed, and moved back by half a logging interval: a log's mean belongs to the middle of its interval."""
    C, D = (column - np.diff(column, prepend=0.0) / 2 for column in (curve.C, curve.D))
    return Curve(curve.N, C, D, smooth_proportional(C, curve.loss, share), curve.schedule, curve.run)


def lower_envelope(curves: Sequence[Curve], *, points: int = 200, share: float = 0.05, force: bool = False) -> Envelope:
    """Smooth, interpolate on a log grid of C, take the lowest and fit its sizes.

    Args:
        curves: of two sizes or more.
        points: of the grid.
        share: of a step's number, width of the smoothing.
        force: take curves of other schedules too; the checks then say so.

    Raises:
        DataError: schedules whose intermediate points mislead; fewer than two sizes with usable curves.
    """
    biased = [one for one in curves if one.schedule not in FLAT_SCHEDULES]
    if biased and not force:
        raise DataError(
            f"{len(biased)} of {len(curves)} curves (schedule {biased[0].schedule!r}) are too high before their end",
            expected=f"schedules {' or '.join(FLAT_SCHEDULES)} (without the decay)",
            remedy="fit the runs' ends by isoflop or parametric fits, or pass force=True and say so",
        )
    usable = [prepared(one, share) for one in curves if len(one.C) > 1 and not diverged(one.loss)]
    sizes = sorted({one.N for one in usable})
    if len(sizes) < 2:
        raise DataError(
            f"curves of {len(sizes)} usable sizes make no envelope",
            expected="two sizes or more, each with several logs",
            remedy="run other sizes, or look at why curves diverged",
        )
    grid = np.geomspace(min(one.C[0] for one in usable), max(one.C[-1] for one in usable), points)
    table = np.array([np.interp(np.log(grid), np.log(one.C), one.loss, np.nan, np.nan) for one in usable])
    grid, table = grid[np.isfinite(table).any(axis=0)], table[:, np.isfinite(table).any(axis=0)]
    best = np.nanargmin(table, axis=0)
    N = np.array([one.N for one in usable])
    tokens = np.array([np.interp(np.log(grid), np.log(one.C), np.log(one.D)) for one in usable])
    columns = np.arange(len(grid))
    there = np.where(np.isfinite(table), N[:, None], np.nan)
    inner = (N[best] > np.nanmin(there, axis=0)) & (N[best] < np.nanmax(there, axis=0))
    D = np.exp(tokens[best, columns])
    N_opt, D_opt = (
        fit_line(grid[inner], column[inner]) if inner.sum() > 1 else Line(np.nan, np.nan) for column in (N[best], D)
    )
    return Envelope(
        grid, table[best, columns], N[best], D, inner, N_opt, D_opt, _checks(curves, usable, biased, grid, inner, sizes)
    )


def _checks(
    curves: Sequence[Curve],
    usable: Sequence[Curve],
    biased: Sequence[Curve],
    grid: Floats,
    inner: Floats,
    sizes: Sequence[float],
) -> tuple[Check, ...]:
    lost = len(curves) - len(usable)
    return (
        check_runs({"C": grid[inner] if inner.any() else grid}, 2),
        Check("schedules", not biased, f"{len(biased)} curves whose intermediate points are too high"),
        Check("excluded", not lost, f"{lost} curves (diverged, or a single log)" if lost else "none"),
        Check("sizes", len(sizes) >= 4, f"{len(sizes)} sizes; the envelope moves in steps between them"),
        Check("edges", bool(inner.mean() > 0.5), f"{inner.mean():.0%} of the envelope lies between the extreme sizes"),
    )
