"""Samplers of denoisers: plain functions from noise to samples along a falling grid of noise levels.

Denoisers D(x, s) give the expectation of a clean sample y from x = y + s n. Their probability flow is
dx/ds = (x - D(x, s)) / s (Karras et al. 2022, eq. 1 and 3); processes that scale signals are the same after a
division by the scale. A step to s = 0 is x = D, which each sampler takes where the grid ends in 0.

States are computed in float64, whatever the network computes in: tens of steps would add up rounding errors.

Shapes: B samples; states float64[B, ...]; grids float64[N + 1] for N steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from generative.errors import ConfigError

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x float64[B, ...], sigma float64[B]) -> D of the same shape, of any type."""

Noise = Callable[[int], Tensor]
"""Number of a step -> N(0, 1) of a state's shape: the same at each call, and independent from step to step."""


@dataclass(frozen=True)
class Churn:
    """Noise that is added before a step, so that errors of earlier steps are forgotten (Karras et al. 2022, alg. 2).

    Args:
        amount: S_churn, spread over all steps; 0: none, the sampler is deterministic.
        low: S_tmin, the lowest noise level at which some is added.
        high: S_tmax, the highest.
        scale: S_noise, standard deviation of what is added relative to what theory says.
    """

    amount: float = 0.0
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0

    def factor(self, sigma: float, steps: int) -> float:
        """gamma: the noise level rises to (1 + gamma) sigma."""
        return min(self.amount / steps, math.sqrt(2) - 1) if self.low <= sigma <= self.high else 0.0


def start(noise: Tensor, grid: Tensor) -> Tensor:
    """The state at the grid's first level, from N(0, 1) of its shape."""
    return noise.double() * _levels(grid)[0]


def heun(denoise: Denoiser, x: Tensor, grid: Tensor, churn: Churn = Churn(), noise: Noise | None = None) -> Tensor:
    """Heun's method, of order 2, with churn before each step (Karras et al. 2022, alg. 1 and 2).

    2 N calls of the denoiser; one less where the grid ends in 0, since that step is Euler's.

    Args:
        denoise: D.
        x: the state at the first level.
        grid: the levels.
        churn: noise that is added.
        noise: where it comes from; may be None without churn.
    """
    return _runge_kutta(denoise, x, grid, churn, noise, trapezoid=True)


def euler(denoise: Denoiser, x: Tensor, grid: Tensor, churn: Churn = Churn(), noise: Noise | None = None) -> Tensor:
    """Euler's method, of order 1: `heun` without its correction; N calls. Without churn it is DDIM."""
    return _runge_kutta(denoise, x, grid, churn, noise, trapezoid=False)


def _runge_kutta(
    denoise: Denoiser, x: Tensor, grid: Tensor, churn: Churn, noise: Noise | None, trapezoid: bool
) -> Tensor:
    levels, x = _levels(grid), x.double()
    for i, (sigma, target) in enumerate(pairwise(levels)):
        gamma = churn.factor(sigma, len(levels) - 1)
        if gamma:
            raised = sigma * (1 + gamma)
            x = x + math.sqrt(raised**2 - sigma**2) * churn.scale * _drawn(noise, i)
            sigma = raised
        slope = (x - _call(denoise, x, sigma)) / sigma
        ahead = x + (target - sigma) * slope
        if trapezoid and target > 0:
            other = (ahead - _call(denoise, ahead, target)) / target
            ahead = x + (target - sigma) * (slope + other) / 2
        x = ahead
    return x


def ddim(denoise: Denoiser, x: Tensor, grid: Tensor, eta: float = 0.0, noise: Noise | None = None) -> Tensor:
    """DDIM (Song, Meng and Ermon 2021, eq. 12 and 16) in terms of noise levels; N calls.

    x' = D + sqrt(t^2 - u^2) (x - D) / s + u n from level s to t, with u = eta t sqrt(1 - t^2 / s^2).

    Args:
        denoise: D.
        x: the state at the first level.
        grid: the levels.
        eta: 0: deterministic, Euler's method; 1: DDPM's ancestral sampling.
        noise: where n comes from; may be None for eta = 0.
    """
    levels, x = _levels(grid), x.double()
    for i, (sigma, target) in enumerate(pairwise(levels)):
        found = _call(denoise, x, sigma)
        fresh = eta * target * math.sqrt(1 - (target / sigma) ** 2)
        x = found + math.sqrt(target**2 - fresh**2) / sigma * (x - found)
        if fresh:
            x = x + fresh * _drawn(noise, i)
    return x


def dpm_solver_2s(denoise: Denoiser, x: Tensor, grid: Tensor) -> Tensor:
    """DPM-Solver++(2S), of order 2 (Lu et al. 2022, alg. 1 with r = 1/2): D half-way in ln sigma; 2 N calls.

    One call less where the grid ends in 0.
    """
    levels, x = _levels(grid), x.double()
    for sigma, target in pairwise(levels):
        found = _call(denoise, x, sigma)
        if target > 0:
            between = math.sqrt(sigma * target)
            found = _call(denoise, _exponential(x, found, sigma, between), between)
        x = _exponential(x, found, sigma, target)
    return x


def dpm_solver_2m(denoise: Denoiser, x: Tensor, grid: Tensor) -> Tensor:
    """DPM-Solver++(2M), of order 2 (Lu et al. 2022, alg. 2): D continued along ln sigma from the step before; N calls.

    The first step, and one to 0, take D as it is.
    """
    levels, x = _levels(grid), x.double()
    before: tuple[Tensor, float] | None = None
    for sigma, target in pairwise(levels):
        found = _call(denoise, x, sigma)
        ahead, length = found, math.inf
        if target > 0:
            length = math.log(sigma / target)
            if before is not None:
                ahead = found + (found - before[0]) * length / (2 * before[1])
        x = _exponential(x, ahead, sigma, target)
        before = found, length
    return x


def _exponential(x: Tensor, found: Tensor, sigma: float, target: float) -> Tensor:
    """The flow from one level to another as if D were constant: D + t / s (x - D)."""
    return found + target / sigma * (x - found)


def _call(denoise: Denoiser, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)).double()


def _drawn(noise: Noise | None, step: int) -> Tensor:
    if noise is None:
        raise ValueError("a stochastic sampler needs noise")
    return noise(step).double()


def _levels(grid: Tensor) -> Sequence[float]:
    levels: list[float] = grid.double().tolist()
    falling = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falling or levels[-1] < 0:
        raise ConfigError(
            f"noise levels {levels[:3]}, ...", "two levels or more that fall, to 0 or above", "give another grid"
        )
    return levels
