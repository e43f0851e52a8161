"""Approach 3 of Hoffmann et al. 2022: E + A / N^alpha + B / D^beta through all runs, with its bootstrap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evaluation.estimate import Ratio, from_draws
from evaluation.scaling.checks import (
    Check,
    check_bounds,
    check_descent,
    check_excluded,
    check_floor,
    check_residuals,
    check_runs,
    check_spread,
)
from evaluation.scaling.engine import Solution, solve
from evaluation.scaling.forms import Surface
from evaluation.scaling.points import Floats, Points
from evaluation.scaling.problem import FitOptions, prepare
from evaluation.scaling.published_grid import grid_optimum
from evaluation.scaling.resample import resampled

NAMES = ("E", "A", "B", "alpha", "beta")
THETA = ("A", "B", "E", "alpha", "beta")

Init = Literal["projection", "grid"]


@dataclass(frozen=True)
class SurfaceFit:
    """A fitted surface.

    Args:
        surface: the law.
        points: what it was fitted to.
        solution: the optimum, with its objective and residuals.
        checks: what to know before trusting it.
    """

    surface: Surface
    points: Points
    solution: Solution
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class SurfaceDraws:
    """Refits of resampled runs.

    Args:
        surface: the law with float64[R] in each field.
        noise: float64[R], log(measured / law) of runs drawn at random: what the loss of a new run differs by.
        runs: n.
        protocol: how they were drawn, in one line.
    """

    surface: Surface
    noise: Floats
    runs: int
    protocol: str

    def interval(self, value: float, draws: Floats, unit: str = "", level: float = 0.95) -> Ratio:
        """Any function of the parameters: its value at the optimum, and at each draw."""
        return from_draws(value, draws, self.runs, unit, f"{level:.0%} {self.protocol}", level)


def surface_of(theta: Floats) -> Surface:
    """The surface of theta[..., 5] = (a, b, e, alpha, beta); numbers where theta is one row."""
    columns = np.concatenate([np.exp(theta[..., :3]), theta[..., 3:]], axis=-1)
    A, B, E, alpha, beta = columns.tolist() if theta.ndim == 1 else np.moveaxis(columns, -1, 0)
    return Surface(E, A, B, alpha, beta)


def fit_surface(points: Points, options: FitOptions | None = None, init: Init = "projection") -> SurfaceFit:
    """Fit all five parameters, or four with `options.tied` or a fixed floor.

    Args:
        points: the runs.
        options: loss, delta, floor, ties.
        init: "projection" (five starts found by linear least squares) or "grid" (4,500 starts as published; minutes).

    Raises:
        DataError: too few runs, or all of one size or one length.
    """
    options = options or FitOptions()
    problem = prepare(np.stack([points.N, points.D], axis=1), points.loss, points.weight, options)
    solution = solve(problem) if init == "projection" else grid_optimum(problem)
    names = [THETA[i] for i in problem.kept()]
    columns = {"C": points.C, "N": points.N, "D": points.D}
    checks = (
        check_runs(columns, len(names)),
        check_excluded(points.excluded),
        check_spread(np.log(points.N), np.log(points.D)),
        check_descent(solution),
        check_bounds(solution, names),
        check_residuals(solution.residuals(), columns),
    )
    return SurfaceFit(surface_of(solution.theta), points, solution, checks)


def bootstrap_surface(fit: SurfaceFit, draws: int = 1000, seed: int = 0, *, seeds_too: bool = False) -> SurfaceDraws:
    """Refit resampled cells, each from the optimum.

    Args:
        fit: the fit of all runs.
        draws: how many.
        seed: of the resampling.
        seeds_too: resample the rows of a drawn cell as well (seeds), instead of keeping them together (checkpoints).
    """
    weights, note = resampled(fit.points, draws, seed, len(fit.solution.free), seeds_too=seeds_too)
    surface = surface_of(fit.solution.refit(weights))
    return SurfaceDraws(surface, drawn_noise(fit.solution, len(weights), seed), len(fit.points), note)


def drawn_noise(solution: Solution, draws: int, seed: int) -> Floats:
    """Resampled deviations log(measured / law), float64[draws], widened for the parameters that the fit took."""
    deviations = -solution.residuals()
    n = len(deviations)
    widened = deviations * np.sqrt(n / max(n - len(solution.free), 1))
    chosen: Floats = np.random.default_rng((seed, 1)).choice(widened, draws)
    return chosen


def intervals(fit: SurfaceFit, draws: SurfaceDraws, C: float, level: float = 0.95, k: float = 6.0) -> dict[str, Ratio]:
    """Parameters, exponents of the frontier, and the optimum of a budget C = k N D.

    A with alpha, and B with beta, are nearly collinear: their intervals are wide where those of a, N_opt and L are not.
    """
    values = dict(zip(("N_opt", "D_opt", "L_opt"), fit.surface.optimum(C, k), strict=True))
    drawn = dict(zip(("N_opt", "D_opt", "L_opt"), draws.surface.optimum(C, k), strict=True))
    for name in (*NAMES, "a", "b", "gamma"):
        values[name], drawn[name] = getattr(fit.surface, name), getattr(draws.surface, name)
    units = {"N_opt": "parameters", "D_opt": "tokens", "L_opt": "nats/token", "E": "nats/token"}
    return {
        name: draws.interval(float(value), drawn[name], units.get(name, ""), level) for name, value in values.items()
    }


def floor_check(fit: SurfaceFit, draws: SurfaceDraws, level: float = 0.95) -> Check:
    """Whether E is told apart from 0."""
    low = float(np.quantile(draws.surface.E, (1 - level) / 2))
    return replace(check_floor(low, float(fit.surface.E), float(fit.points.loss.min()), level), name="floor E")
