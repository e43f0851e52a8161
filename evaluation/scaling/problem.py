"""Fits of floor + sum_v exp(a_v) / x_v^alpha_v to losses: the one engine behind L(N, D), L(C), L(N) and L(D).

Hoffmann et al. 2022, eq. 3, with a start by variable projection instead of a grid. The sum over runs is minimised, not
the mean: with the mean and usual tolerances an optimiser stops early (Besiroglu et al. 2024).

Shapes: n runs, V variables, R fits at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.scaling.newton import Minimum, Objective, minimise
from evaluation.scaling.points import Floats
from evaluation.scaling.projection import project
from evaluation.scaling.terms import law_terms
from generative.errors import DataError

LossName = Literal["huber", "lad", "log_mse", "mse"]

EXPONENT_BOUNDS = (0.005, 4.0)
VANISHING = 14.0
"""A term may fall to e^-14 of the largest loss: below, it is not there."""

LAD_DELTAS = (1e-3, 1e-5, 1e-7)
"""Absolute values as the limit of Huber's loss; each stage starts where the one before ended."""


@dataclass(frozen=True)
class FitOptions:
    """How a law is fitted.

    Args:
        loss: "huber" and "lad" (absolute values) of log residuals, "log_mse" of squares of them, "mse" of squares of
            residuals of the loss itself.
        delta: of Huber's loss.
        floor: irreducible loss where it is known (0: none); None to fit it.
        tied: one exponent for all variables (Gadre et al. 2024).
        starts: cells of the projection's grid that a descent starts from.
    """

    loss: LossName = "huber"
    delta: float = 1e-3
    floor: float | None = None
    tied: bool = False
    starts: int = 5

    def parameters(self, V: int) -> int:
        """Free parameters with V variables."""
        return V + (self.floor is None) + (1 if self.tied else V)


@dataclass(frozen=True)
class Problem:
    """A fit made ready.

    Args:
        log_x: float64[n, V], centred.
        centre: float64[V], what was taken off.
        loss: float64[n].
        weight: float64[n].
        options: how to fit.
    """

    log_x: Floats
    centre: Floats
    loss: Floats
    weight: Floats
    options: FitOptions

    @property
    def variables(self) -> int:
        """Variables."""
        return len(self.centre)

    def restriction(self) -> tuple[Floats, Floats]:
        """Matrix and constant of theta = matrix @ free + constant: the floor may be fixed and exponents tied."""
        V, options = self.variables, self.options
        matrix, constant = np.eye(2 * V + 1), np.zeros(2 * V + 1)
        if options.tied:
            matrix = np.concatenate([matrix[:, : V + 1], matrix[:, V + 1 :].sum(axis=1, keepdims=True)], axis=1)
        if options.floor is not None:
            matrix = np.delete(matrix, V, axis=1)
            constant[V] = math.log(max(options.floor, 1e-300))
        return matrix, constant

    def objective(self, delta: float) -> Objective:
        """The objective with one delta, in the free parameters."""
        terms = law_terms(self.log_x).restricted(*self.restriction())
        return Objective(terms, np.log(self.loss), delta, self.options.loss == "mse")

    def stages(self) -> tuple[float, ...]:
        """Deltas to minimise with, one after the other."""
        options = self.options
        return {"huber": (options.delta,), "lad": LAD_DELTAS}.get(options.loss, (math.inf,))

    def bounds(self) -> tuple[Floats, Floats]:
        """The box of the free parameters."""
        V, top = self.variables, math.log(float(self.loss.max()))
        lower = np.array([top - VANISHING] * (V + 1) + [EXPONENT_BOUNDS[0]] * V)
        upper = np.array([top + VANISHING] * V + [math.log(float(self.loss.min()))] + [EXPONENT_BOUNDS[1]] * V)
        return self.free(lower), self.free(upper)

    def kept(self) -> list[int]:
        """Which entries of theta are free; of tied exponents, the first."""
        V, options = self.variables, self.options
        floor = [V] if options.floor is None else []
        return [*range(V), *floor, *range(V + 1, V + 2 if options.tied else 2 * V + 1)]

    def free(self, theta: Floats) -> Floats:
        """Free parameters of theta[..., 2 V + 1]."""
        chosen: Floats = theta[..., self.kept()]
        return chosen

    def full(self, free: Floats) -> Floats:
        """Theta[..., 2 V + 1] for variables that are not centred."""
        matrix, constant = self.restriction()
        theta: Floats = free @ matrix.T + constant
        theta[..., : self.variables] += theta[..., self.variables + 1 :] * self.centre
        return theta

    def reported(self, free: Floats) -> Floats:
        """The objective as the options name it, float64[R] for free float64[R, P]: with "lad", absolute residuals."""
        objective = self.objective(self.stages()[-1])
        if self.options.loss != "lad":
            return objective.value(free, self.weight[None])
        total: Floats = np.abs(objective.residuals(free)[0]) @ self.weight
        return total

    def descend(self, starts: Floats, weight: Floats, *, roughly: bool = False) -> Minimum:
        """Minimise from float64[R, P] with weights float64[n] or float64[R, n].

        `roughly` leaves out the last stage of absolute values: enough for bootstrap draws, and much faster.
        """
        lower, upper = self.bounds()
        stages = self.stages()
        for delta in stages[: max(len(stages) - roughly, 1)]:
            found = minimise(self.objective(delta), starts, weight, lower, upper)
            starts = found.theta
        return found

    def starts(self) -> Floats:
        """The best cells of the projection, float64[options.starts, P]."""
        options = self.options
        best = project(self.log_x, self.loss, self.weight, floor=options.floor, tied=options.tied, best=options.starts)
        with np.errstate(divide="ignore"):
            theta = np.concatenate([np.log(best.factors), np.log(best.floor)[:, None], best.exponents], axis=1)
        return np.clip(self.free(theta), *self.bounds())


def prepare(x: Floats, loss: Floats, weight: Floats, options: FitOptions) -> Problem:
    """Check the runs and centre their logarithms.

    Args:
        x: float64[n, V].
        loss: float64[n].
        weight: float64[n].
        options: how to fit.

    Raises:
        DataError: fewer runs than parameters, a variable that does not vary, or a floor above the lowest loss.
    """
    n, V = x.shape
    needed = options.parameters(V)
    if n < needed:
        raise DataError(
            f"{n} runs cannot determine {needed} parameters",
            expected=f"{needed} runs or more, better {2 * needed}",
            remedy="finish more cells, or fix the floor (floor=) or tie the exponents (tied=True)",
        )
    log_x = np.log(x)
    for v in range(V):
        if np.ptp(log_x[:, v]) < 1e-9:
            raise DataError(
                f"all {n} runs have the same {'variable' if V == 1 else ('N', 'D')[v]} ({x[0, v]:g})",
                expected="runs that differ in it",
                remedy="add runs of other sizes or lengths",
            )
    if options.floor is not None and options.floor >= loss.min():
        raise DataError(
            f"the floor {options.floor:g} is not below the lowest loss {loss.min():g}",
            expected="0 <= floor < every loss",
            remedy="lower floor, or leave it out to fit it",
        )
    centre = log_x.mean(axis=0)
    return Problem(log_x - centre, centre, loss, weight / weight.mean(), options)
