"""Forward processes: from a clean spectrogram x0 at t = 0 to the neighbourhood of the noisy one, y.

All three are linear and pulled towards y,

    dx = pull(t) (y - x) dt + g(t) dw,    x_t = a(t) x0 + (1 - a(t)) y + std(t) z,

with complex noise E|z|^2 = 1. So v = x - y is an ordinary diffusion of the data x0 - y, with signal a and noise std.

Source of OUVE: Richter et al. 2023 (arXiv 2208.05830); the bridges are in `bridges`.

The laws of t are computed in float64 and rounded once, to the type of the state. Shapes: t [B] or [], x0, y, x complex
[B, ...].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Values [B] or [] of t as factors of a state [B, ...], in its real type; a single value stays where it is."""
    if values.dim() == 0:
        return values.to(like.real.dtype)
    shaped = values.reshape(-1, *[1] * (like.dim() - 1))
    return shaped.to(like.device, like.real.dtype)


class Process(ABC):
    """What all processes share; the laws of t are float64 [B] or [], like t, which is in [0, T].

    Attributes:
        T: where sampling starts.
        t_eps: least time of training, above 0 (the score has no bound at 0).
    """

    T: float
    t_eps: float

    @abstractmethod
    def signal(self, t: Tensor) -> Tensor:
        """a(t), what is left of x0: falls from 1."""

    @abstractmethod
    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t given x0 and y; 0 at t = 0."""

    @abstractmethod
    def pull(self, t: Tensor) -> Tensor:
        """Rate -a'/a at which x is drawn to y."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""

    def mean(self, x0: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Mean of x_t: a x0 + (1 - a) y."""
        a = self.signal(t)
        return spread(a, x0) * x0 + spread(1 - a, y) * y

    def drift(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """pull(t) (y - x)."""
        return spread(self.pull(t), x) * (y - x)

    def prior(self, y: Tensor, noise: Tensor, start: float | None = None) -> Tensor:
        """Where sampling starts: y + std(start) z, start = T if not given.

        It omits what is left of x0 in the mean, a(start) (x0 - y), as published.
        """
        t = torch.tensor(self.T if start is None else start, dtype=torch.float64)
        return y + spread(self.std(t), y) * noise


@dataclass(frozen=True)
class OUVE(Process):
    """Ornstein-Uhlenbeck process with exploding variance: g(t) = sigma_min r^t sqrt(2 ln r), r = sigma_max / sigma_min.

    std^2 = sigma_min^2 ln r (r^(2t) - e^(-2 theta t)) / (theta + ln r). Published: (1.5, 0.05, 0.5) at 16 kHz and
    (2, 0.1, 1) at 48 kHz.

    Args:
        theta: stiffness, at least 0.
        sigma_min: above 0.
        sigma_max: above sigma_min.
        t_eps: least time.
        T: end of time.
    """

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5
    t_eps: float = 0.03
    T: float = 1.0

    def __post_init__(self) -> None:
        check_times(self)
        if self.theta < 0 or not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"OUVE with theta={self.theta}, sigma_min={self.sigma_min}, sigma_max={self.sigma_max}",
                expected="theta >= 0 and 0 < sigma_min < sigma_max",
                remedy="take 1.5, 0.05 and 0.5 (16 kHz), or 2.0, 0.1 and 1.0 (48 kHz)",
            )

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def signal(self, t: Tensor) -> Tensor:
        """e^(-theta t)."""
        return torch.exp(-self.theta * t.double())

    def std(self, t: Tensor) -> Tensor:
        """See the class; as e^(-2 theta t) (e^(2 (theta + ln r) t) - 1), which loses no digits at small t."""
        rate, t = self.theta + self._log_ratio, t.double()
        scale = self.sigma_min**2 * self._log_ratio / rate
        return (scale * torch.exp(-2 * self.theta * t) * torch.expm1(2 * rate * t)).sqrt()

    def pull(self, t: Tensor) -> Tensor:
        """theta."""
        return torch.full_like(t, self.theta, dtype=torch.float64)

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""
        return self.sigma_min * torch.exp(self._log_ratio * t.double()) * math.sqrt(2 * self._log_ratio)


def draw_times(process: Process, uniform: Tensor) -> Tensor:
    """Times of training, [B]: uniform in [t_eps, T] for uniforms in [0, 1), in their type."""
    return (uniform * (process.T - process.t_eps) + process.t_eps).clamp(max=process.T)


def check_times(process: Process) -> None:
    """0 < t_eps < T, or a ConfigError."""
    if not 0 < process.t_eps < process.T:
        raise ConfigError(
            f"{type(process).__name__} with t_eps={process.t_eps}, T={process.T}",
            expected="0 < t_eps < T",
            remedy="take t_eps=0.03 (1e-4 for SBVE)",
        )
