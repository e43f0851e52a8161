"""How much more compute one family of models needs for the same loss as another (Nie et al. 2024, section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evaluation.estimate import Estimate, Ratio, from_draws
from evaluation.scaling.checks import Check
from evaluation.scaling.isoflop_fit import IsoflopFit
from evaluation.scaling.lines import Line, fit_line
from evaluation.scaling.points import Floats
from generative.errors import DataError


@dataclass(frozen=True)
class Frontier:
    """The best loss at each budget of one family.

    Args:
        name: of the family.
        C: float64[b], ascending.
        loss: float64[b]; a bound where the family has only one (masked diffusion).
        draws: float64[R, b], losses of resampled runs; None without an interval.
    """

    name: str
    C: Floats
    loss: Floats
    draws: Floats | None = None

    @property
    def line(self) -> Line:
        """Power law without a floor through all budgets."""
        return fit_line(self.C, self.loss)


@dataclass(frozen=True)
class Gap:
    """Compute of `slow` over compute of `fast` at equal loss.

    Args:
        factor: the geometric mean over the losses that both have reached, with its interval; or a lower bound.
        losses: float64[m], where it was measured; empty for a bound.
        factors: float64[m], the gap at each.
        interval: None for a bound, or where there are no draws.
        checks: what to know before trusting it.
    """

    factor: Estimate
    losses: Floats
    factors: Floats
    interval: Ratio | None
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        if self.factor.bound == "lower":
            return f">= {self.factor.value:.3g} (lower bound: the loss ranges do not overlap)"
        return f"{self.factor.value:.3g}" if self.interval is None else str(self.interval)


def frontier_of(name: str, fit: IsoflopFit) -> Frontier:
    """The bracketed minima of an IsoFLOP fit."""
    good = fit.bracketed
    return Frontier(name, np.array([one.achieved for one in good]), np.array([one.loss for one in good]), fit.minima)


def compute_gap(slow: Frontier, fast: Frontier, *, points: int = 9, level: float = 0.95) -> Gap:
    """The gap where both families were measured; a lower bound where their losses do not overlap.

    Both frontiers are interpolated in log-log between their budgets and never extended. If the best loss of `slow`
    at its largest budget is above that of `fast` at its smallest, then `slow` needs at least C_max / C_min.

    Raises:
        DataError: a family with fewer than two budgets, or one whose loss does not fall with compute.
    """
    for one in (slow, fast):
        if len(one.C) < 2 or not one.loss[-1] < one.loss[0]:
            raise DataError(
                f"{one.name}: {len(one.C)} budgets with best losses {np.round(one.loss, 4).tolist()}",
                expected="two budgets or more, with losses that fall",
                remedy="finish more budgets before comparing families",
            )
    note = f"compute of {slow.name} / compute of {fast.name} at equal loss"
    low, high = max(slow.loss.min(), fast.loss.min()), min(slow.loss[0], fast.loss[0])
    if low >= high:
        return _bound(slow, fast, note)
    losses = np.geomspace(high, low, points)
    factors = np.exp(_log_compute(slow.C, slow.loss, losses) - _log_compute(fast.C, fast.loss, losses))
    value = float(np.exp(np.log(factors).mean()))
    interval = None
    told = f"{note}, geometric mean over losses {low:.4g} to {high:.4g}"
    if slow.draws is not None and fast.draws is not None:
        draws = _drawn(slow, fast, losses)
        told += f"; {level:.0%} bootstrap interval, {len(draws)} draws of both families"
        interval = from_draws(value, draws, len(slow.C) + len(fast.C), "", told, level)
    factor = interval.estimate if interval else Estimate(value, None, len(slow.C) + len(fast.C), "", told)
    return Gap(factor, losses, factors, interval, _checks(slow, fast, math.log(high / low), factors))


def gap_of_lines(slow: Line, fast: Line, C_fast: Floats) -> Floats:
    """The gap by two fitted power laws at budgets of the fast family: extrapolated wherever nothing was measured."""
    factors: Floats = slow.inverse(fast(C_fast)) / C_fast
    return factors


def _log_compute(C: Floats, loss: Floats, at: Floats) -> Floats:
    """log C at which a frontier reaches a loss: log-log interpolation of the running minimum."""
    falling = np.minimum.accumulate(loss)
    first = np.unique(falling, return_index=True)[1]  # ascending losses, each at the budget that reached it first
    return np.interp(np.log(at), np.log(falling[first]), np.log(C[first]))


def _drawn(slow: Frontier, fast: Frontier, losses: Floats) -> Floats:
    """Geometric mean of the gap in each draw; in a draw, only losses that both reach count."""
    assert slow.draws is not None
    assert fast.draws is not None
    out = []
    for one, other in zip(slow.draws, fast.draws, strict=False):
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            continue
        low, high = max(one.min(), other.min()), min(one[0], other[0])
        inside = losses[(losses >= low) & (losses <= high)]
        if inside.size:
            log_gap = _log_compute(slow.C, one, inside) - _log_compute(fast.C, other, inside)
            out.append(float(np.exp(log_gap.mean())))
    return np.array(out)


def _bound(slow: Frontier, fast: Frontier, note: str) -> Gap:
    """Disjoint losses: the slow family's largest budget is not enough for what the fast one has at its smallest."""
    if slow.loss.min() < fast.loss.min():
        raise DataError(
            f"{slow.name} is better at every budget than {fast.name} at any: the families are in the wrong order",
            expected="the family that needs more compute first",
            remedy="swap them",
        )
    bound = float(slow.C.max() / fast.C.min())
    told = f"{note}; at least C_max / C_min, since {slow.name} does not reach the loss {fast.loss[0]:.4g}"
    check = Check(
        "overlap", False, f"best loss of {slow.name} {slow.loss.min():.4g}, worst of {fast.name} {fast.loss[0]:.4g}"
    )
    factor = Estimate(bound, None, len(slow.C) + len(fast.C), "", told, bound="lower")
    return Gap(factor, np.zeros(0), np.zeros(0), None, (check,))


def _checks(slow: Frontier, fast: Frontier, overlap: float, factors: Floats) -> tuple[Check, ...]:
    whole = math.log(max(slow.loss[0], fast.loss[0]) / min(slow.loss.min(), fast.loss.min()))
    trend = float(np.log(factors[-1] / factors[0]))
    return (
        Check("overlap", overlap > 0.25 * whole, f"both families cover {overlap / whole:.0%} of the range of log loss"),
        Check(
            "constancy",
            abs(trend) < 0.7,
            f"from {factors[0]:.3g} at the highest to {factors[-1]:.3g} at the lowest loss",
        ),
    )
