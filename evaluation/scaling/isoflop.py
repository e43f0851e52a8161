"""Approach 2 of Hoffmann et al. 2022: the best size at each budget, and power laws through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.scaling.points import Floats, Points
from evaluation.scaling.valley import Parabola, ValleyOptions, akima_minimum, by_size, fit_parabola

FEWEST = 4
"""Sizes below which a parabola proves nothing."""


@dataclass(frozen=True)
class Valley:
    """The minimum over sizes at one budget.

    Args:
        budget: FLOPs that the runs aimed at.
        N: best size; NaN, as are D and loss, where it is not bracketed.
        D: tokens there, interpolated between the runs (not C / 6N).
        loss: nats per token there.
        bracketed: whether runs on both sides show that it is a minimum.
        why: why not.
        proposal: the size to add so that it is, or None.
        sizes: how many different ones there are.
        half_width: sqrt(largest / smallest size used).
        centre: geometric mean of the sizes used.
        curve: the parabola, for drawing; None with Akima's.
        rows: which points were used.
        achieved: FLOPs spent where the minimum is (median of the runs used).
    """

    budget: float
    N: float
    D: float
    loss: float
    bracketed: bool
    why: str
    proposal: float | None
    sizes: int
    half_width: float
    centre: float
    curve: Parabola | None
    rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    achieved: float


def find_valleys(points: Points, options: ValleyOptions | None = None) -> list[Valley]:
    """One for each budget, ascending; never raises for what runs are missing, but tells it."""
    return [find_valley(points, budget, options or ValleyOptions()) for budget in points.budgets()]


def find_valley(points: Points, budget: float, options: ValleyOptions) -> Valley:
    """The minimum at one budget, and whether it is one."""
    rows = np.flatnonzero(points.budget == budget)
    sizes, (losses,) = by_size(points.N[rows], points.loss[rows])
    best = sizes[np.argmin(losses)]
    if options.window is not None:
        rows = rows[np.abs(np.log(points.N[rows] / best)) <= math.log(options.window) * (1 + 1e-9)]
        sizes, (losses,) = by_size(points.N[rows], points.loss[rows])
    N, loss, log_D = points.N[rows], points.loss[rows], np.log(points.D[rows])
    blank = Valley(
        budget=float(budget),
        N=math.nan,
        D=math.nan,
        loss=math.nan,
        bracketed=False,
        why="",
        proposal=None,
        sizes=len(sizes),
        half_width=math.sqrt(sizes[-1] / sizes[0]),
        centre=float(np.exp(np.log(sizes).mean())),
        curve=None,
        rows=rows,
        achieved=float(np.median(points.C[rows])),
    )
    if len(sizes) < FEWEST:
        return replace(
            blank, why=f"{len(sizes)} sizes, {FEWEST} or more are needed", proposal=_next_size(sizes, losses)
        )
    log_N, height, curve = _lowest(N, loss, points.weight[rows], options)
    why = _unbracketed(sizes, losses, log_N)
    if not why:
        by_tokens, (mean_log_D,) = by_size(N, log_D)
        tokens = math.exp(np.interp(log_N, np.log(by_tokens), mean_log_D))
        blank = replace(blank, N=math.exp(log_N), D=tokens, loss=height)
    return replace(blank, bracketed=not why, why=why, curve=curve, proposal=_next_size(sizes, losses) if why else None)


def _lowest(N: Floats, loss: Floats, weight: Floats, options: ValleyOptions) -> tuple[float, float, Parabola | None]:
    """log N, loss and curve of the minimum."""
    if options.kind == "akima":
        sizes, (log_loss,) = by_size(N, np.log(loss))
        log_N, log_L = akima_minimum(sizes, np.exp(log_loss))
        return log_N, math.exp(log_L), None
    curve = fit_parabola(N, loss[None], weight, options.log_loss, options.robust)
    height = float(curve.height[0])
    return float(curve.vertex[0]), math.exp(height) if options.log_loss else height, curve


def _unbracketed(sizes: Floats, losses: Floats, log_N: float) -> str:
    """What is missing for a minimum; '' where nothing is."""
    lowest = int(np.argmin(losses))
    if lowest == 0:
        return "the smallest size has the lowest loss"
    if lowest == len(sizes) - 1:
        return "the largest size has the lowest loss"
    if math.isnan(log_N):
        return "the losses do not curve upwards"
    if not math.log(sizes[0]) < log_N < math.log(sizes[-1]):
        return "the minimum of the curve lies outside of the sizes"
    return ""


def _next_size(sizes: Floats, losses: Floats) -> float:
    """The size to run next: one step beyond the edge that the losses fall towards, or in the middle of a wide gap."""
    step = float((sizes[-1] / sizes[0]) ** (1 / (len(sizes) - 1))) if len(sizes) > 1 else 2.0
    lowest = int(np.argmin(losses))
    if 0 < lowest < len(sizes) - 1:
        gaps = np.log(sizes[1:] / sizes[:-1])
        wide = lowest - 1 + int(np.argmax(gaps[lowest - 1 : lowest + 1]))
        return float(np.sqrt(sizes[wide] * sizes[wide + 1]))
    return float(sizes[0] / step if lowest == 0 else sizes[-1] * step)


def missing(valleys: Sequence[Valley]) -> list[str]:
    """What to do about budgets that are not bracketed, a line each."""
    return [
        f"budget {one.budget:.3g}: not bracketed ({one.why}); add N of about {one.proposal:.3g}"
        for one in valleys
        if not one.bracketed and one.proposal is not None
    ]
