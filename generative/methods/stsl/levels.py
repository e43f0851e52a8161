"""Noise levels z = a z0 + b n of a path, from noise to data, and DDIM's step from one to the next.

Notation of the method's README: a = sqrt(abar), b = sqrt(1 - abar) on a variance-preserving path; any other path that a
network was trained on is the same after a division (z / a = z0 + sigma n, sigma = b / a), and e, the noise, is equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.errors import ConfigError


@dataclass(frozen=True)
class Level:
    """One noise level.

    Args:
        time: what a network with discrete times is told; others use `sigma`.
        signal: a, above 0.
        noise: b, 0 or more.
    """

    time: float
    signal: float
    noise: float

    @property
    def sigma(self) -> float:
        """Noise relative to the signal, b / a."""
        return self.noise / self.signal

    @property
    def alpha_bar(self) -> float:
        """a^2, on a variance-preserving path."""
        return self.signal**2


def level_of(alpha_bar: float, time: float) -> Level:
    """A level of a variance-preserving path."""
    return Level(time, math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))


def linear_alphas(first: float = 1e-4, last: float = 2e-2, count: int = 1000) -> Tensor:
    """Cumulative products of 1 - beta, betas linear (DDPM, ADM), float64[count]."""
    return (1 - torch.linspace(first, last, count, dtype=torch.float64)).cumprod(0)


def scaled_linear_alphas(first: float = 0.00085, last: float = 0.012, count: int = 1000) -> Tensor:
    """The same with betas linear in their square roots (latent diffusion, Stable Diffusion 1.x)."""
    roots = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64)
    return (1 - roots.square()).cumprod(0)


def ddim_times(count: int, steps: int) -> list[int]:
    """`steps` of the times 0 .. count-1, evenly apart and one later (CompVis): 1, 21, ..., 981 for 50 of 1000; rising.

    All of them: 0, 1, ..., count-1. Where `steps` does not divide `count`, CompVis gives more than asked, or one beyond
    the last; here there are always as many as asked.

    Raises:
        ConfigError: more steps than times, or none.
    """
    if not 1 <= steps <= count:
        raise ConfigError(f"{steps} steps of a network with {count} times", f"1 to {count}", "give another number")
    return [i * count // steps + (steps < count) for i in range(steps)]


def ladder(alphas: Tensor, times: Sequence[int], final: Literal["first", "one"] = "one") -> list[Level]:
    """Levels at falling times, then the last: alpha_bar of time 0 ("first": Stable Diffusion), or 1."""
    found = [level_of(float(alphas[time]), time) for time in sorted(times, reverse=True)]
    return [*found, level_of(float(alphas[0]) if final == "first" else 1.0, 0)]


def fresh_noise(level: Level, target: Level, eta: float) -> float:
    """Standard deviation of the noise that a DDIM step adds: eta a' (s' / s) sqrt(s^2 - s'^2), s = b / a.

    On a variance-preserving path: eta sqrt((1 - abar') / (1 - abar) (1 - abar / abar')).
    """
    high, low = level.sigma, target.sigma
    return eta * target.signal * (low / high) * math.sqrt(max(0.0, high**2 - low**2))


def clean(z: Tensor, e: Tensor, level: Level) -> Tensor:
    """Tweedie's mean (z - b e) / a."""
    return (z - level.noise * e) / level.signal


def ddim_step(z0: Tensor, e: Tensor, level: Level, target: Level, eta: float, drawn: Tensor | None) -> Tensor:
    """a' z0 + sqrt(b'^2 - f^2) e + f n with f = `fresh_noise`; `drawn`: n, may be None where eta = 0."""
    fresh = fresh_noise(level, target, eta)
    ahead = target.signal * z0 + math.sqrt(max(0.0, target.noise**2 - fresh**2)) * e
    return ahead if drawn is None or not fresh else ahead + fresh * drawn
