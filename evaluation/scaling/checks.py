"""What a reader has to know of a fit before trusting it (the checklist of Li et al. 2025, "(Mis)Fitting")."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.scaling.engine import Solution
from evaluation.scaling.points import Exclusion, Floats

ENOUGH_DECADES = 1.5
"""Budgets of a campaign should span this much compute."""

NOTABLE = 2.6
"""Rank correlation times sqrt(n - 1): about 1 % of unrelated columns exceed it."""


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Args:
        name: of the check.
        ok: False where a reader should hesitate.
        text: what was found, in one line.
    """

    name: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok ' if self.ok else 'WARNING '}{self.name}: {self.text}"


def decades(values: Floats) -> float:
    """Powers of ten between the lowest and the highest."""
    return float(np.log10(values.max() / values.min()))


def check_runs(columns: Mapping[str, Floats], parameters: int, what: str = "runs") -> Check:
    """Whether the runs are many enough for the parameters and span enough; the first column leads."""
    (first, lead), n = next(iter(columns.items())), len(next(iter(columns.values())))
    ranges = ", ".join(f"{name} {values.min():.3g} to {values.max():.3g}" for name, values in columns.items())
    ok = n >= 2 * parameters and decades(lead) >= ENOUGH_DECADES
    return Check(
        what,
        ok,
        f"{n} for {parameters} parameters (better {2 * parameters} or more), {decades(lead):.1f} decades of {first} "
        f"(better {ENOUGH_DECADES:g} or more); {ranges}",
    )


def check_excluded(excluded: Iterable[Exclusion]) -> Check:
    """Which runs no fit has seen, and why."""
    reasons = Counter(one.why for one in excluded)
    told = ", ".join(f"{count} ({why})" for why, count in reasons.items())
    return Check("excluded", not reasons, told or "none")


def check_descent(solution: Solution) -> Check:
    """Whether the starts agree on the optimum."""
    options, converged = solution.problem.options, solution.converged
    ended = "" if converged else "; the best one ran out of steps"
    text = f"{solution.share:.0%} of the starts reached {options.loss} objective {solution.objective:.6g}{ended}"
    return Check("optimum", converged and solution.share > 0.3, text)


def check_bounds(solution: Solution, names: Iterable[str]) -> Check:
    """Which parameters ended at the edge of the box, so that their value means nothing."""
    stuck = [name for name, at in zip(names, solution.at_bounds, strict=True) if at]
    return Check("bounds", not stuck, f"not identified, at a bound: {', '.join(stuck)}" if stuck else "none reached")


def check_residuals(residuals: Floats, columns: Mapping[str, Floats]) -> Check:
    """Size of the residuals of log loss, and whether they still follow a column: rising, or bent about its middle."""
    scale = math.sqrt(len(residuals) - 1)
    told, strong = [], False
    for name, values in columns.items():
        log_x = np.log(values)
        trend, bend = (rank_correlation(residuals, of) for of in (log_x, np.abs(log_x - np.median(log_x))))
        strong = strong or max(abs(trend), abs(bend)) * scale > NOTABLE
        told.append(f"{trend:+.2f} (bend {bend:+.2f}) with {name}")
    text = f"rms {np.sqrt(np.mean(residuals**2)):.2%}, largest {np.abs(residuals).max():.2%}; rank correlation "
    text += ", ".join(told)
    return Check("residuals", not strong, text + ("; structure is left, the form does not fit" if strong else ""))


def check_spread(log_N: Floats, log_D: Floats) -> Check:
    """Whether N and D vary apart from each other; where they do not, the two terms cannot be told from one another."""
    correlation = float(np.corrcoef(log_N, log_D)[0, 1])
    text = f"log N and log D correlate by {correlation:+.3f}"
    return Check("design", abs(correlation) < 0.98, text)


def check_floor(low: float, value: float, lowest: float, level: float) -> Check:
    """Whether the irreducible loss is told apart from none: the lower end of its interval against the lowest loss."""
    ok = low > 0.01 * lowest
    text = f"{value:.4g}, lower end of the {level:.0%} interval {low:.4g}"
    return Check("floor", ok, text if ok else f"no floor identified ({text})")


def check_seeds(noise: tuple[float, int] | None, residuals: Floats, parameters: int) -> Check:
    """Whether a law misses its runs by no more than runs that differ in their seed alone miss each other.

    Args:
        noise: as `points.seed_noise` gives it.
        residuals: float64[n], of log loss.
        parameters: that were fitted.
    """
    if noise is None:
        return Check("seeds", False, "no cell was run with another seed: noise is not known (repeat one by `extra`)")
    rms = float(np.sqrt((residuals**2).sum() / max(len(residuals) - parameters, 1)))
    ok = rms <= 3 * noise[0]
    text = (
        f"log loss differs by {noise[0]:.2g} between seeds ({noise[1]} degrees of freedom), from the law by {rms:.2g}"
    )
    return Check("seeds", ok, text if ok else f"{text}: more than noise explains")


def check_bias(ratios: Floats, exponent: float, limit: float = 0.1) -> Check:
    """What parabolas do to the best sizes of an exact surface: `ratios` found / true, and the exponent's error."""
    ok = abs(exponent) <= 0.02 and bool((np.abs(np.log(ratios)) <= limit).all())
    text = (
        f"on the fitted surface itself, parabolas at these sizes find {ratios.min():.3g} to {ratios.max():.3g} times "
        f"the best size, and an exponent that is off by {exponent:+.3f}"
    )
    return Check("parabolas", ok, text)


def check_distance(asked: float, highest: float, what: str = "C", limit: float = 10.0) -> Check:
    """How far a prediction goes beyond what was measured; above `limit` times it is a guess."""
    factor = asked / highest
    text = f"{what} = {asked:.3g} is {factor:.3g} x the largest measured ({highest:.3g})"
    return Check("extrapolation", factor <= limit, text)


def rank_correlation(x: Floats, y: Floats) -> float:
    """Spearman's, with mean ranks for ties; 0 where a column is constant."""
    first, second = _ranks(x), _ranks(y)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Floats) -> Floats:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: Floats = (ends - (counts - 1) / 2)[index]
    return mean
