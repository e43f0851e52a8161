"""What fits say of runs that they have not seen: back-tests, and each budget left out in turn.

An interval that covers one held-out point proves little: its width is told beside it, and the share of budgets covered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.estimate import Estimate, Ratio, from_draws, mean_estimate
from evaluation.scaling.parametric import bootstrap_surface, fit_surface
from evaluation.scaling.points import Floats, Points
from evaluation.scaling.problem import FitOptions
from generative.errors import DataError

Forecast = Callable[[Points, Points], tuple[Floats, Floats, str]]
"""(fitted to, asked for) -> predicted losses float64[m], draws of what would be measured float64[R, m], protocol."""


class Foretold:
    """A loss that was predicted, with an interval, and then measured."""

    measured: float
    predicted: Ratio

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted.estimate.value / self.measured - 1

    @property
    def covered(self) -> bool:
        """Whether the interval holds the measured loss."""
        return self.predicted.low <= self.measured <= self.predicted.high

    @property
    def width(self) -> float:
        """Of the interval, nats per token."""
        return self.predicted.high - self.predicted.low


@dataclass(frozen=True)
class HeldOut(Foretold):
    """A run that the fit has not seen.

    Args:
        budget: FLOPs.
        N: parameters.
        D: tokens.
        measured: its loss, nats per token.
        predicted: with the interval in which a new run's loss is expected (parameters and noise).
    """

    budget: float
    N: float
    D: float
    measured: float
    predicted: Ratio


def surface_forecast(options: FitOptions | None = None, draws: int = 400, seed: int = 0) -> Forecast:
    """Predict by the surface L(N, D)."""

    def forecast(seen: Points, asked: Points) -> tuple[Floats, Floats, str]:
        fit = fit_surface(seen, options)
        drawn = bootstrap_surface(fit, draws, seed)
        columns = (column[:, None] for column in (drawn.surface.E, drawn.surface.A, drawn.surface.B))
        E, A, B = columns
        alpha, beta = drawn.surface.alpha[:, None], drawn.surface.beta[:, None]
        losses = E + A * asked.N**-alpha + B * asked.D**-beta
        return fit.surface.loss(asked.N, asked.D), losses * np.exp(drawn.noise)[:, None], drawn.protocol

    return forecast


def backtest(points: Points, forecast: Forecast, ratio: float = 10.0, level: float = 0.95) -> list[HeldOut]:
    """Fit budgets up to the largest / `ratio`, predict those above.

    Raises:
        DataError: no budget is that much smaller than the largest.
    """
    limit = points.budget.max() / ratio
    seen = points.budget <= limit * (1 + 1e-9)
    if not seen.any():
        raise DataError(
            f"no budget is {ratio:g} times smaller than the largest, {points.budget.max():.3g} FLOPs",
            expected="budgets that span more",
            remedy="back-test with a smaller ratio, or leave one budget out at a time",
        )
    return predicted_from(points.take(seen), points.take(~seen), forecast, level)


def leave_one_budget_out(points: Points, forecast: Forecast, level: float = 0.95) -> list[HeldOut]:
    """Predict the runs of each budget from all others.

    Raises:
        DataError: fewer than three budgets, or too few runs without one of them.
    """
    budgets = points.budgets()
    if len(budgets) < 3:
        raise DataError(
            f"{len(budgets)} budgets are too few to leave one out",
            expected="three or more",
            remedy="finish cells of other budgets",
        )
    out: list[HeldOut] = []
    for budget in budgets:
        left = points.budget == budget
        out += predicted_from(points.take(~left), points.take(left), forecast, level)
    return out


def predicted_from(seen: Points, asked: Points, forecast: Forecast, level: float = 0.95) -> list[HeldOut]:
    """Runs that are asked for, predicted from those that were seen."""
    predicted, draws, protocol = forecast(seen, asked)
    note = f"{level:.0%} interval of a new run, fitted to {len(seen)} runs of other budgets; {protocol}"
    told = [from_draws(float(p), draws[:, i], len(seen), "nats/token", note, level) for i, p in enumerate(predicted)]
    rows = zip(asked.budget, asked.N, asked.D, asked.loss, told, strict=True)
    return [HeldOut(float(c), float(n), float(d), float(loss), p) for c, n, d, loss, p in rows]


def coverage(held_out: Sequence[HeldOut]) -> Estimate:
    """Share of intervals that hold what was measured; runs of one budget count as one observation."""
    shares = _by_budget(held_out, lambda one: float(one.covered))
    return mean_estimate(shares, "", f"share of intervals that hold the measured loss, {len(shares)} budgets")


def mean_width(held_out: Sequence[HeldOut]) -> Estimate:
    """Mean width of the intervals, nats per token; runs of one budget count as one observation."""
    widths = _by_budget(held_out, lambda one: one.width)
    return mean_estimate(widths, "nats/token", f"mean width of the intervals, {len(widths)} budgets")


def worst_error(held_out: Sequence[HeldOut]) -> Estimate:
    """Largest relative error of a prediction."""
    worst = max(abs(one.error) for one in held_out)
    return Estimate(worst, None, len(held_out), "", f"largest |predicted / measured - 1| of {len(held_out)} runs")


def _by_budget(held_out: Sequence[HeldOut], of: Callable[[HeldOut], float]) -> list[float]:
    budgets = sorted({one.budget for one in held_out})
    return [float(np.mean([of(one) for one in held_out if one.budget == budget])) for budget in budgets]
