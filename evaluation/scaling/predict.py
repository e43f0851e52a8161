"""From a law and a budget to a size, a length and a loss, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.estimate import Ratio, from_draws
from evaluation.scaling.checks import Check, check_distance
from evaluation.scaling.isoflop_fit import IsoflopFit
from evaluation.scaling.parametric import SurfaceDraws, SurfaceFit
from evaluation.scaling.saturating import PowerFit
from generative.errors import ConfigError


@dataclass(frozen=True)
class Prediction:
    """What to train with a budget, and what to expect.

    Args:
        C: FLOPs.
        N: parameters, in the convention of the fit.
        D: tokens.
        loss: of the law, nats per token; the interval is that of the law.
        run: the loss that a run would measure: the interval holds its noise too.
        checks: of the fit, and how far this goes beyond it.
    """

    C: float
    N: Ratio
    D: Ratio
    loss: Ratio
    run: Ratio
    checks: tuple[Check, ...]


def predict_surface(
    fit: SurfaceFit, draws: SurfaceDraws, C: float, *, level: float = 0.95, k: float = 6.0
) -> Prediction:
    """By approach 3, for C = k N D.

    Raises:
        ConfigError: C is not a positive number.
    """
    _check_budget(C)
    values, drawn = fit.surface.optimum(C, k), draws.surface.optimum(C, k)
    units = ("parameters", "tokens", "nats/token")
    N, D, loss = (draws.interval(float(v), d, unit, level) for v, d, unit in zip(values, drawn, units, strict=True))
    run = draws.interval(float(values[2]), drawn[2] * np.exp(draws.noise), "nats/token", level)
    far = check_distance(C, float(fit.points.C.max()))
    return Prediction(C, N, D, loss, run, (*fit.checks, far))


def predict_isoflop(fit: IsoflopFit, C: float, *, law: PowerFit | None = None, level: float = 0.95) -> Prediction:
    """By approach 2; the loss by the power law through the minima, or by `law`, one with a floor.

    Raises:
        ConfigError: C is not a positive number.
    """
    _check_budget(C)
    n = len(fit.bracketed)
    note = f"{level:.0%} {fit.protocol}"
    lines = zip((fit.N_opt, fit.D_opt), fit.draws[:2], ("parameters", "tokens"), strict=True)
    N, D = (from_draws(float(line(C)), drawn(C), n, unit, note, level) for line, drawn, unit in lines)
    if law is None:
        value, drawn, noise = float(fit.L_opt(C)), fit.draws[2](C), fit.noise
    else:
        value, drawn, noise = float(law.law(C)), law.draws(C), law.noise
        note = f"{level:.0%} {law.protocol}"
    loss = from_draws(value, drawn, n, "nats/token", note, level)
    run = from_draws(value, drawn * np.exp(noise), n, "nats/token", note + ", with the noise of a run", level)
    checks = (*fit.checks, *(law.checks if law else ()), check_distance(C, max(one.achieved for one in fit.bracketed)))
    return Prediction(C, N, D, loss, run, checks)


def _check_budget(C: float) -> None:
    if not (np.isfinite(C) and C > 0):
        raise ConfigError(
            f"a budget of {C:g} FLOPs cannot be spent",
            expected="a positive number of FLOPs, such as 1e18",
            remedy="give --flops as a number (not PF-days: 1 PF-day = 8.64e19 FLOPs)",
        )
