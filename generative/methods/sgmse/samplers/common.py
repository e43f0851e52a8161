"""What samplers share: grids of times, models that count their calls, one step of the reverse process.

Shapes: B items; states complex [B, 1, F, K].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.processes import Process, spread
from generative.methods.sgmse.wrapping import Model

Observer = Callable[[int, Tensor], None]
"""Called after each step with its index and the state."""


@dataclass(frozen=True)
class Sampled:
    """What a sampler returns.

    Args:
        estimate: complex [B, 1, F, K].
        calls: network evaluations that each item took, int64[B].
    """

    estimate: Tensor
    calls: Tensor


class Counted:
    """A model at one noisy spectrogram, called at plain times, that counts evaluations of each item.

    Args:
        model: score or denoiser.
        y: complex [B, 1, F, K].
    """

    def __init__(self, model: Model, y: Tensor) -> None:
        self._model, self.y = model, y
        self.calls = torch.zeros(len(y), dtype=torch.int64)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """The model at x for all items, at one time."""
        self.calls += 1
        return self._model(x, self.y, self._times(t))

    def rows(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """The model for the items in int64 `rows` only: x complex [R, 1, F, K], t [R]."""
        self.calls[rows.cpu()] += 1
        return self._model(x, self.y[rows], t.to(self.y.device, self.y.real.dtype))

    def _times(self, t: float) -> Tensor:
        return torch.full((len(self.y),), t, dtype=self.y.real.dtype, device=self.y.device)


def time(t: float) -> Tensor:
    """A time as the laws of a process take it, float64[]."""
    return torch.tensor(t, dtype=torch.float64)


@dataclass(frozen=True)
class Span:
    """From which time to which a sampler goes.

    Args:
        start: in (end, T]; below T sampling starts on the way (reverse starting point).
        end: above 0: the least time at which the network is called.
    """

    start: float
    end: float

    @staticmethod
    def of(process: Process, start: float | None, end: float | None) -> Span:
        """The process's own span where nothing is given.

        Raises:
            ConfigError: unless 0 < end < start <= T.
        """
        span = Span(process.T if start is None else start, process.t_eps if end is None else end)
        if not 0 < span.end < span.start <= process.T:
            raise ConfigError(
                f"sampling from t={span.start} to t={span.end}",
                expected=f"0 < end < start <= {process.T}, the end of time of {type(process).__name__}",
                remedy=f"leave them out, or take start={process.T} and end={process.t_eps}",
            )
        return span

    def grid(self, points: int) -> list[float]:
        """Times from start to end, both included; start alone for one point."""
        return torch.linspace(self.start, self.end, points, dtype=torch.float64).tolist()


def check_steps(steps: int) -> None:
    """At least one step, or a ConfigError."""
    if steps < 1:
        raise ConfigError(
            f"steps={steps}", "at least 1", "take 30 for predictor-corrector sampling, 5 to 15 for others"
        )


def frame_mask(like: Tensor, frames: Tensor) -> Tensor:
    """bool[B, 1, 1, K]: the first int64 `frames` [B] of each item; the others are padding."""
    place = torch.arange(like.shape[-1], device=like.device)
    return place < frames.to(like.device)[:, None, None, None]


def reverse_step(
    process: Process, score: Tensor, x: Tensor, y: Tensor, t: float, length: float, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step of length dt back in time of the reverse process, by Euler and Maruyama.

    mean = x - drift dt + g^2 score dt; state = mean + g sqrt(dt) z. The reverse diffusion predictor is the same.

    Returns:
        (state, mean); both the mean where there is no noise.
    """
    g = process.diffusion(time(t))
    mean = x - length * process.drift(x, y, time(t)) + spread(length * g.square(), x) * score
    return (mean if noise is None else mean + spread(math.sqrt(length) * g, x) * noise), mean


def flow(process: Process, score: Tensor, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """dx/dt of the probability-flow ODE: drift - g^2 score / 2; t [B] or []."""
    return process.drift(x, y, t) - spread(0.5 * process.diffusion(t).square(), x) * score
