"""Dormand and Prince's Runge-Kutta method of order 5 with an embedded one of order 4, for each row by itself.

Source: Dormand and Prince 1980; step control as in Hairer, Norsett and Wanner, "Solving Ordinary Differential
Equations I", section II.4: the error's root mean square in units of atol + rtol |x| is kept below 1, steps change by
0.9 error^(-1/5) within [0.2, 10]. Rows have step sizes of their own, so that a row's result does not depend on others.

Shapes: B rows; states [B, ...], real or complex; R rows that are still on their way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError, GenerativeError

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x [R, ...], t float64[R], rows int64[R]) -> dx/dt [R, ...]."""

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
ERROR = (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
"""Fifth minus fourth order; the seventh slope is that at the new state, the first of the next step."""

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0


@dataclass(frozen=True)
class Tolerance:
    """rtol and atol, both above 0."""

    rtol: float
    atol: float

    def __post_init__(self) -> None:
        if self.rtol <= 0 or self.atol <= 0:
            raise ConfigError(f"rtol={self.rtol}, atol={self.atol}", "tolerances above 0", "take 1e-5 for both")


@dataclass(frozen=True)
class _Norm:
    """Root mean square of x / scale over the counted places of each row, float64[R]."""

    tolerance: Tolerance
    counted: Tensor | None

    def scale(self, magnitude: Tensor) -> Tensor:
        return self.tolerance.atol + self.tolerance.rtol * magnitude

    def __call__(self, x: Tensor, scale: Tensor, rows: Tensor) -> Tensor:
        squares = (x.abs() / scale).double().square().flatten(1)
        if self.counted is None:
            return squares.mean(1).sqrt()
        counted = self.counted[rows].flatten(1)
        return ((squares * counted).sum(1) / counted.sum(1).clamp(min=1)).sqrt()


def integrate(
    slope: Slope, x: Tensor, start: float, end: float, tolerance: Tolerance, counted: Tensor | None = None
) -> Tensor:
    """x at time `end`, [B, ...].

    Args:
        slope: dx/dt of some rows; called with those only that need it.
        x: the state at `start`.
        start: first time.
        end: last time, before or after the first.
        tolerance: of the error of one step.
        counted: bool like x: places whose errors count (not padding); None: all.

    Raises:
        GenerativeError: a step would be lost in rounding: the slope has no bound, or is not finite.
    """
    norm, sign = _Norm(tolerance, counted), 1.0 if end > start else -1.0
    x, rows = x.clone(), torch.arange(len(x), device=x.device)
    t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
    first = slope(x, t, rows)
    size = _first_size(slope, norm, x, t, first, rows, sign, abs(end - start))
    rejected = torch.zeros_like(rows, dtype=torch.bool)
    while len(rows):
        size = torch.minimum(size, (end - t[rows]).abs())
        _check(size, t[rows])
        new, last, error = _step(slope, norm, x[rows], t[rows], sign * size, first, rows)
        # Not finite counts as too large.
        accepted = error < 1
        factor = (SAFETY * error**-0.2).nan_to_num(0.0).clamp(SHRINK, GROW)
        # After a rejection a step does not grow at once.
        factor = torch.where(accepted & rejected, factor.clamp(max=1.0), factor)
        factor = torch.where(accepted, factor, factor.clamp(max=1.0))
        x[rows[accepted]] = new[accepted]
        t[rows] = torch.where(accepted, _advanced(t[rows], sign * size, end), t[rows])
        first = torch.where(_like(accepted, first), last, first)
        going = t[rows] != end
        rows, size, rejected, first = rows[going], (size * factor)[going], ~accepted[going], first[going]
    return x


def _advanced(t: Tensor, change: Tensor, end: float) -> Tensor:
    """t + change, exactly `end` where the step was cut to reach it."""
    return torch.where(change.abs() >= (end - t).abs(), torch.full_like(t, end), t + change)


def _step(
    slope: Slope, norm: _Norm, x: Tensor, t: Tensor, change: Tensor, first: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(state after the step, slope there, error norm float64[R])."""
    width, slopes = _like(change, x).to(x.real.dtype), [first]
    for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
        slopes.append(slope(x + width * _mix(weights, slopes), t + node * change, rows))
    new = x + width * _mix(FIFTH, slopes)
    slopes.append(slope(new, t + change, rows))
    scale = norm.scale(torch.maximum(x.abs(), new.abs()))
    return new, slopes[-1], norm(width * _mix(ERROR, slopes), scale, rows)


def _first_size(
    slope: Slope, norm: _Norm, x: Tensor, t: Tensor, first: Tensor, rows: Tensor, sign: float, span: float
) -> Tensor:
    """Size of the first step, float64[B], from the slope and its change over a small step (Hairer et al., II.4)."""
    scale = norm.scale(x.abs())
    at, speed = norm(x, scale, rows), norm(first, scale, rows)
    guess = torch.where((at < 1e-5) | (speed < 1e-5), torch.full_like(at, 1e-6), 0.01 * at / speed).clamp(max=span)
    ahead = slope(x + _like(sign * guess, x).to(x.real.dtype) * first, t + sign * guess, rows)
    bend = norm(ahead - first, scale, rows) / guess
    top = torch.maximum(speed, bend)
    size = torch.where(top <= 1e-15, (guess * 1e-3).clamp(min=1e-6), (0.01 / top) ** 0.2)
    return torch.minimum(100 * guess, size).clamp(max=span)


def _mix(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """Sum of the weighted slopes."""
    total = torch.zeros_like(slopes[0])
    for weight, each in zip(weights, slopes, strict=True):
        if weight:
            total = total + weight * each
    return total


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 1))


def _check(size: Tensor, t: Tensor) -> None:
    lost = ~(size > 10 * torch.finfo(torch.float64).eps * t.abs())
    if bool(lost.any()):
        raise GenerativeError(
            f"the step at t={t[lost][0].item():.6g} fell to {size[lost][0].item():.3g}",
            expected="a slope that is finite and bounded",
            remedy="loosen rtol and atol, or look for a network that gives inf or nan",
        )
