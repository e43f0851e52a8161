"""The optimum of a fit, and refits of resampled runs from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.scaling.newton import Flags
from evaluation.scaling.points import Floats
from evaluation.scaling.problem import Problem
from evaluation.scaling.terms import law_terms

SAME = 1e-7
"""Starts have reached the optimum when their objective exceeds it by at most this share."""


@dataclass(frozen=True)
class Solution:
    """The optimum.

    Args:
        problem: what was solved.
        free: float64[P], free parameters of the centred problem.
        theta: float64[2 V + 1], (a, log floor, alpha) of variables that are not centred.
        objective: sum over runs as the options name it.
        share: of the starts, how many reached it.
        converged: whether the best descent ended by itself.
        at_bounds: bool[P].
    """

    problem: Problem
    free: Floats
    theta: Floats
    objective: float
    share: float
    converged: bool
    at_bounds: Flags

    def residuals(self) -> Floats:
        """log L predicted - log L measured, float64[n]."""
        problem = self.problem
        matrix, constant = problem.restriction()
        predicted, _ = law_terms(problem.log_x).log_loss((matrix @ self.free + constant)[None])
        difference: Floats = predicted[0] - np.log(problem.loss)
        return difference

    def refit(self, weight: Floats) -> Floats:
        """Theta of other weights float64[R, n] on the same runs, starting at the optimum: float64[R, 2 V + 1]."""
        starts = np.broadcast_to(self.free, (len(weight), len(self.free)))
        return self.problem.full(self.problem.descend(starts, weight * self.problem.weight, roughly=True).theta)


def solve(problem: Problem, starts: Floats | None = None) -> Solution:
    """The best of several descents; `starts` float64[R, P] in place of the projection's."""
    begun = problem.starts() if starts is None else starts
    found = problem.descend(begun, problem.weight)
    values = problem.reported(found.theta)
    best = int(np.argmin(values))
    lower, upper = problem.bounds()
    free = found.theta[best]
    return Solution(
        problem,
        free,
        problem.full(free),
        float(values[best]),
        share_within(values, float(values[best])),
        bool(found.converged[best]),
        (free <= lower) | (free >= upper),
    )


def share_within(values: Floats, best: float) -> float:
    """Of the objectives reached, how many are the best one, to within `SAME`."""
    return float((values <= best * (1 + SAME) + 1e-300).mean())
