"""The published way to the optimum, for audit: L-BFGS from each of 4,500 starts (Hoffmann et al. 2022, D.2)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np

from evaluation.scaling.engine import Solution, share_within, solve
from evaluation.scaling.points import Floats
from evaluation.scaling.problem import Problem

SCALED_DELTA = 10.0
"""The objective is multiplied so that delta becomes this: at 1e-3 it is too small for the optimiser's tolerances."""


def grid_starts() -> Floats:
    """Their values of (a, b, e, alpha, beta), float64[4500, 5]."""
    factors, floors, exponents = np.arange(0, 26, 5), np.arange(-1, 1.1, 0.5), np.arange(0, 2.1, 0.5)
    return np.array(list(product(factors, factors, floors, exponents, exponents)), dtype=np.float64)


def grid_descents(problem: Problem, starts: Floats) -> Floats:
    """Where L-BFGS ends from each start, float64[R, P] in the free parameters."""
    from scipy.optimize import minimize

    objective, weight = problem.objective(problem.stages()[-1]), problem.weight[None]
    scale = SCALED_DELTA / objective.delta if math.isfinite(objective.delta) else 1e4

    def scaled(free: Floats) -> tuple[float, Floats]:
        value, gradient = objective.value_and_gradient(free[None], weight)
        return scale * float(value[0]), scale * gradient[0]

    ends = [minimize(scaled, start, jac=True, method="L-BFGS-B").x for start in starts]
    return np.array(ends, dtype=np.float64)


def grid_optimum(problem: Problem, starts: Floats | None = None) -> Solution:
    """The best of all descents, then polished; `share` tells how many starts came within 1e-7 of it.

    Args:
        problem: of two variables.
        starts: float64[R, 5] in (a, b, e, alpha, beta); the 4,500 published ones by default.
    """
    begun = grid_starts() if starts is None else starts
    centred = begun.copy()
    centred[:, : problem.variables] -= begun[:, problem.variables + 1 :] * problem.centre
    ends = grid_descents(problem, problem.free(centred))
    values = problem.reported(ends)
    polished = solve(problem, ends[np.nanargmin(values)][None])
    return replace(polished, share=share_within(values, polished.objective))
