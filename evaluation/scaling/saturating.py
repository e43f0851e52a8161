"""One variable: L(x) = floor + (x0 / x)^exponent, x being N, D or C (Henighan et al. 2020, eq. 1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.scaling.checks import (
    Check,
    check_bounds,
    check_descent,
    check_floor,
    check_residuals,
    check_runs,
)
from evaluation.scaling.engine import Solution, solve
from evaluation.scaling.forms import PowerLaw
from evaluation.scaling.parametric import drawn_noise
from evaluation.scaling.points import Floats, points_of
from evaluation.scaling.problem import FitOptions, prepare
from evaluation.scaling.resample import resampled


@dataclass(frozen=True)
class PowerFit:
    """A fitted power law.

    Args:
        law: floor, scale and exponent.
        x: float64[n], what it was fitted to.
        loss: float64[n].
        draws: the law with float64[R] in each field, of resampled points.
        noise: float64[R], log(measured / law) of points drawn at random.
        protocol: how they were drawn.
        solution: the optimum.
        checks: what to know before trusting it.
    """

    law: PowerLaw
    x: Floats
    loss: Floats
    draws: PowerLaw
    noise: Floats
    protocol: str
    solution: Solution
    checks: tuple[Check, ...]


def power_of(theta: Floats) -> PowerLaw:
    """The law of theta[..., 3] = (a, log floor, exponent); numbers where theta is one row."""
    columns = np.stack([np.exp(theta[..., 1]), np.exp(theta[..., 0] / theta[..., 2]), theta[..., 2]], axis=-1)
    return PowerLaw(*(columns.tolist() if theta.ndim == 1 else np.moveaxis(columns, -1, 0)))


def fit_power(
    x: Floats,
    loss: Floats,
    options: FitOptions | None = None,
    *,
    weight: Floats | None = None,
    cell: Floats | None = None,
    name: str = "C",
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PowerFit:
    """Fit log L, with a floor unless `options.floor` fixes it (0 for a pure power law).

    Args:
        x: float64[n].
        loss: float64[n], nats per token.
        options: loss, delta, floor.
        weight: float64[n]; 1 by default.
        cell: [n], the same for rows that are not independent.
        name: of x, for messages.
        draws: of the bootstrap.
        seed: of the bootstrap.
        level: of the interval that decides whether a floor is identified.

    Raises:
        DataError: too few points, or unusable ones.
    """
    options = options or FitOptions()
    points = points_of(x, x, loss, C=x, weight=weight, cell=cell)
    solution = solve(prepare(points.N[:, None], points.loss, points.weight, options))
    weights, protocol = resampled(points, draws, seed, len(solution.free))
    law, drawn = power_of(solution.theta), power_of(solution.refit(weights))
    columns = {name: points.N}
    names = [("scale", "floor", "exponent")[i] for i in solution.problem.kept()]
    checks = [
        check_runs(columns, len(names)),
        check_descent(solution),
        check_bounds(solution, names),
        check_residuals(solution.residuals(), columns),
    ]
    if options.floor is None:
        low = float(np.quantile(drawn.floor, (1 - level) / 2))
        checks.append(check_floor(low, law.floor, float(points.loss.min()), level))
    noise = drawn_noise(solution, len(weights), seed)
    return PowerFit(law, points.N, points.loss, drawn, noise, protocol, solution, tuple(checks))
