"""Damped Newton for robust fits, many at once: bootstrap draws and starts are rows of the same arrays.

Five parameters and an exact Hessian make Newton's method quick, and its stopping rule sharp: the objective is minimised
to rounding, where quasi-Newton methods with their usual tolerances stop early in the flat valley of A and alpha.

Shapes: R fits, n points, P free parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.scaling.points import Floats
from evaluation.scaling.terms import Terms, weighted_gram

Flags = NDArray[np.bool_]

SMALLEST, LARGEST = 1e-12, 1e10
"""Damping, in units of the curvature of the touching parabola; beyond the largest no step lowers the objective."""


@dataclass(frozen=True)
class Objective:
    """sum_n weight_n Huber_delta(r_n).

    Args:
        terms: the law.
        target: float64[n], log of the losses.
        delta: where squares become absolute values; inf for squares alone.
        linear: residuals of the loss itself; False for those of its logarithm.
    """

    terms: Terms
    target: Floats
    delta: float
    linear: bool = False

    def residuals(self, theta: Floats) -> tuple[Floats, Floats]:
        """r float64[R, n] and shares float64[R, n, K]."""
        log_loss, shares = self.terms.log_loss(theta)
        return (np.exp(log_loss) - np.exp(self.target) if self.linear else log_loss - self.target), shares

    def value(self, theta: Floats, weight: Floats) -> Floats:
        """float64[R] for theta float64[R, P] and weight float64[R, n]."""
        return self._total(self.residuals(theta)[0], weight)

    def _total(self, r: Floats, weight: Floats) -> Floats:
        inside = np.minimum(np.abs(r), self.delta)
        total: Floats = (weight * (inside * (np.abs(r) - inside / 2))).sum(axis=-1)
        return total

    def value_and_gradient(self, theta: Floats, weight: Floats) -> tuple[Floats, Floats]:
        """float64[R] and float64[R, P]."""
        r, shares = self.residuals(theta)
        return self._total(r, weight), np.einsum("rn,rnp->rp", self._pull(r, weight), self.terms.slopes(shares))

    def expansion(self, theta: Floats, weight: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Value [R], gradient [R, P], Hessian [R, P, P] and size of each parameter's effect [R, P].

        The square of the size is the curvature of the parabola that touches the objective from above: it is there
        also where all residuals are beyond delta and the Hessian vanishes.
        """
        r, shares = self.residuals(theta)
        slopes, pull = self.terms.slopes(shares), self._pull(r, weight)
        steepness = weight * (r + np.exp(self.target)) ** 2 if self.linear else weight
        inside = steepness * (np.abs(r) <= self.delta) + (pull if self.linear else 0.0)
        gradient = np.einsum("rn,rnp->rp", pull, slopes)
        hessian = weighted_gram(slopes, inside) + self.terms.curvature(shares, slopes, pull)
        above = steepness * np.minimum(1.0, self.delta / np.maximum(np.abs(r), 1e-300))
        size = np.sqrt(np.einsum("rn,rnp->rp", above, slopes**2)) + 1e-150
        return self._total(r, weight), gradient, hessian, size

    def _pull(self, r: Floats, weight: Floats) -> Floats:
        """d objective / d log L of each point, float64[R, n]."""
        pull = weight * np.clip(r, -self.delta, self.delta)
        return pull * (r + np.exp(self.target)) if self.linear else pull


@dataclass(frozen=True)
class Minimum:
    """Where the descents ended.

    Args:
        theta: float64[R, P].
        value: float64[R].
        converged: bool[R]; False where steps ran out.
    """

    theta: Floats
    value: Floats
    converged: Flags


def minimise(
    objective: Objective,
    starts: Floats,
    weight: Floats,
    lower: Floats,
    upper: Floats,
    *,
    steps: int = 300,
    tolerance: float = 1e-13,
) -> Minimum:
    """Descend from each start within a box.

    Args:
        objective: what to minimise.
        starts: float64[R, P].
        weight: float64[n], or float64[R, n] with one set for each start.
        lower: float64[P], of the box.
        upper: float64[P].
        steps: at most.
        tolerance: a descent has ended when a Newton step promises less than this share of the objective.
    """
    theta = np.clip(starts, lower, upper)
    weight = np.broadcast_to(weight, (len(theta), weight.shape[-1]))
    value = objective.value(theta, weight)
    damping = np.full(len(theta), 1e-3)
    active = np.arange(len(theta))
    for _ in range(steps):
        if not active.size:
            break
        now, gradient, hessian, size = objective.expansion(theta[active], weight[active])
        step, promised = _step(
            gradient / size, hessian, size, damping[active], _stuck(theta[active], gradient, lower, upper)
        )
        trial = np.clip(theta[active] + step, lower, upper)
        reached = objective.value(trial, weight[active])
        better = reached < now
        theta[active[better]], value[active[better]] = trial[better], reached[better]
        damping[active] = np.where(better, np.maximum(damping[active] * 0.2, SMALLEST), damping[active] * 6)
        ended = (promised <= tolerance * now) | (damping[active] > LARGEST)
        active = active[~ended]
    converged = np.ones(len(theta), dtype=bool)
    converged[active] = False
    return Minimum(theta, value, converged)


def _stuck(theta: Floats, gradient: Floats, lower: Floats, upper: Floats) -> Flags:
    """Parameters at a bound that descent would push beyond it."""
    return ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))


def _step(gradient: Floats, hessian: Floats, size: Floats, damping: Floats, stuck: Flags) -> tuple[Floats, Floats]:
    """A step float64[R, P] downhill in every direction of the Hessian, and the decrease it promises float64[R]."""
    scaled = hessian / (size[:, :, None] * size[:, None, :])
    scaled[stuck[:, :, None] | stuck[:, None, :]] = 0.0
    gradient = np.where(stuck, 0.0, gradient)
    curvature, directions = np.linalg.eigh(scaled)
    strength, slope = np.abs(curvature), np.einsum("rpk,rp->rk", directions, gradient)
    step = -np.einsum("rpk,rk->rp", directions, slope / (strength + damping[:, None]))
    undamped = slope**2 / (strength + SMALLEST)
    return step / size, undamped.sum(axis=-1) / 2
