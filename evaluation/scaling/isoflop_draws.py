"""Minima of resampled IsoFLOP runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.scaling.isoflop import Valley
from evaluation.scaling.points import Floats, Points
from evaluation.scaling.resample import resampled
from evaluation.scaling.valley import ValleyOptions, akima_minimum, by_size, fit_parabola
from generative.errors import DataError


@dataclass(frozen=True)
class Resampling:
    """How the uncertainty of the minima is found.

    Args:
        kind: "residuals" adds resampled residuals of the parabolas to them (for the few sizes of a budget, of which
            resampling would leave no parabola); "cells" resamples cells within budgets; "noise" adds normal noise.
        draws: how many.
        seed: of the generator.
        noise: standard deviation of log L between seeds, for "noise".
    """

    kind: Literal["residuals", "cells", "noise"] = "residuals"
    draws: int = 1000
    seed: int = 0
    noise: float | None = None


def draw_minima(
    points: Points, good: Sequence[Valley], options: ValleyOptions, resampling: Resampling
) -> tuple[list[Floats], Floats, str]:
    """N, D and loss at the minima of resampled runs, each float64[R, budgets]; noise float64[R]; and how.

    Raises:
        DataError: residuals of a curve that has none.
    """
    generator = np.random.default_rng(resampling.seed)
    R = resampling.draws
    weights = np.ones((R, 1)) * points.weight
    losses = np.ones((R, 1)) * points.loss
    pool = np.zeros(1)
    if resampling.kind == "cells":
        counts, note = resampled(points, R, resampling.seed, 3, strata=True)
        weights, losses, R = counts * points.weight, losses[: len(counts)], len(counts)
    if options.kind == "parabola":
        fitted, pool = _fitted(points, good, options)
    if resampling.kind == "residuals":
        if options.kind != "parabola":
            raise DataError(
                "the points of Akima's curve have no residuals to resample",
                expected='resampling "noise" with the standard deviation of log L between seeds',
                remedy='give Resampling("noise", noise=...), or use parabolas',
            )
        losses = fitted * np.exp(generator.choice(pool, (R, len(points))))
        note = f"bootstrap interval, {R} draws of {len(pool)} residuals around {len(good)} parabolas"
    if resampling.kind == "noise":
        pool = generator.normal(0.0, resampling.noise or 0.0, R)
        losses = losses * np.exp(generator.normal(0.0, resampling.noise or 0.0, (R, len(points))))
        note = f"interval of {R} draws of seed noise, {resampling.noise or 0.0:.2g} of log L"
    columns = [_minima(points, one, losses, weights, options) for one in good]
    stacked = [np.stack([column[i] for column in columns], axis=1) for i in range(3)]
    return stacked, generator.choice(pool, R), note


def _fitted(points: Points, good: Sequence[Valley], options: ValleyOptions) -> tuple[Floats, Floats]:
    """Losses of the parabolas float64[n] (NaN outside of them) and log residuals, widened for the parameters taken."""
    fitted, residuals, taken = np.full(len(points), np.nan), [], 0
    for one in good:
        assert one.curve is not None
        fitted[one.rows] = one.curve(points.N[one.rows])[0]
        residuals.append(np.log(points.loss[one.rows] / fitted[one.rows]))
        taken += 3
    pool = np.concatenate(residuals)
    return fitted, pool * math.sqrt(len(pool) / max(len(pool) - taken, 1))


def _minima(
    points: Points, one: Valley, losses: Floats, weights: Floats, options: ValleyOptions
) -> tuple[Floats, Floats, Floats]:
    """N, D and loss of one budget's minimum in each draw; NaN where it is none or outside of the sizes."""
    N = points.N[one.rows]
    sizes, (log_D, *_) = by_size(N, np.log(points.D[one.rows]))
    if options.kind == "akima":
        by = by_size(N, np.log(losses[:, one.rows]))[1][0]
        log_N, log_L = np.array([akima_minimum(sizes, np.exp(row)) for row in by]).T
    else:
        curve = fit_parabola(N, losses[:, one.rows], weights[:, one.rows], options.log_loss, options.robust)
        log_N, log_L = curve.vertex, curve.height if options.log_loss else np.log(np.maximum(curve.height, 1e-300))
    inside = (log_N > math.log(sizes[0])) & (log_N < math.log(sizes[-1]))
    log_N, log_L = np.where(inside, log_N, np.nan), np.where(inside, log_L, np.nan)
    tokens = np.interp(log_N, np.log(sizes), log_D)
    return np.exp(log_N), np.exp(tokens), np.exp(log_L)
