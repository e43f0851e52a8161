"""Exponential integrators: the linear part of the process exactly, the network by first or second order.

v = x - y is a diffusion of the data v0 = x0 - y with signal a and noise std, so solvers that are written for (alpha,
sigma) apply unchanged: Song et al. 2020 (arXiv 2010.02502) for the first order, Lu et al. 2022 (arXiv 2211.01095),
algorithm 2, for the second, and its SDE form for fresh noise.

With lambda = ln(a / std), h = lambda_s - lambda_t from t back to s:
    ODE: v_s = (std_s / std_t) v_t + a_s (1 - e^-h) D
    SDE: v_s = (std_s / std_t) e^-h v_t + a_s (1 - e^-2h) D + std_s sqrt(1 - e^-2h) z
first order: D = D_t - y; second: D = (1 + r) D_t - r D_before - y, r = h / (2 h_before), D the denoiser.

Shapes: B items; states complex [B, 1, F, K].
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.noise import Noise
from generative.methods.sgmse.processes import Process
from generative.methods.sgmse.samplers.common import Counted, Observer, Sampled, Span, check_steps
from generative.methods.sgmse.wrapping import Model

Spacing = Literal["time", "log_snr"]


@dataclass(frozen=True)
class Point:
    """The laws of a process at one time, as plain numbers."""

    t: float
    signal: float
    std: float

    @property
    def log_snr(self) -> float:
        """lambda = ln(a / std)."""
        return math.log(self.signal) - math.log(self.std)


def points_at(process: Process, times: Tensor) -> list[Point]:
    """a(t) and std(t) at float64[N] times in (0, T]."""
    laws = zip(times.tolist(), process.signal(times).tolist(), process.std(times).tolist(), strict=True)
    return [Point(*each) for each in laws]


@torch.no_grad()
def exponential(
    denoiser: Model,
    process: Process,
    y: Tensor,
    noise: Noise,
    *,
    steps: int = 10,
    order: Literal[1, 2] = 2,
    stochastic: bool = False,
    spacing: Spacing = "time",
    start: float | None = None,
    end: float | None = None,
    denoise: bool = True,
    observer: Observer | None = None,
) -> Sampled:
    """From the prior to t_eps, and there to the denoiser; calls: steps.

    Args:
        denoiser: of the noisy state.
        process: forward process.
        y: noisy spectrogram.
        noise: "prior", and "predictor" at each step where stochastic.
        steps: network calls, at least 1.
        order: 2 uses the denoiser of the step before as well.
        stochastic: fresh noise in each step, as in the reverse process.
        spacing: equal steps of time, or of the logarithm of the signal-to-noise ratio.
        start: first time; None: T.
        end: last time; None: t_eps.
        denoise: end with the denoiser at `end`, instead of the state there.
        observer: called after each step.

    Raises:
        ConfigError: an order that is neither 1 nor 2.
    """
    check_steps(steps)
    if order not in (1, 2):
        raise ConfigError(f"order={order}", "1 or 2", "take 2")
    span, model = Span.of(process, start, end), Counted(denoiser, y)
    points = grid(process, span, steps if denoise else steps + 1, spacing)
    v = process.prior(y, noise("prior", 0), span.start) - y
    before: tuple[Tensor, float] | None = None
    for step, (here, there) in enumerate(itertools.pairwise(points)):
        clean = model(y + v, here.t) - y
        h = there.log_snr - here.log_snr
        target = clean
        if order == 2 and before is not None:
            target = clean + h / (2 * before[1]) * (clean - before[0])
        v = transfer(v, target, here, there, noise("predictor", step) if stochastic else None)
        before = clean, h
        if observer is not None:
            observer(step, y + v)
    return Sampled(model(y + v, points[-1].t) if denoise else y + v, model.calls)


def transfer(v: Tensor, target: Tensor, here: Point, there: Point, noise: Tensor | None) -> Tensor:
    """v at an earlier time, exact for a denoiser that is constant on the way: `target` = D - y, see above."""
    h = there.log_snr - here.log_snr
    ratio = there.std / here.std
    if noise is None:
        return ratio * v - there.signal * math.expm1(-h) * target
    gained = -math.expm1(-2 * h)
    return ratio * math.exp(-h) * v + there.signal * gained * target + there.std * math.sqrt(gained) * noise


def grid(process: Process, span: Span, points: int, spacing: Spacing) -> list[Point]:
    """Points from the span's start to its end; the start alone for one."""
    times = torch.tensor(span.grid(points), dtype=torch.float64)
    if spacing == "log_snr" and points > 2:
        first, *_, last = (each.log_snr for each in points_at(process, times))
        times[1:-1] = times_of(process, span, torch.linspace(first, last, points, dtype=torch.float64)[1:-1])
    return points_at(process, times)


def times_of(process: Process, span: Span, log_snr: Tensor) -> Tensor:
    """Times at which ln(a / std) has the values float64[N], by bisection: it falls with time."""
    low, high = (torch.full_like(log_snr, end) for end in (span.end, span.start))
    for _ in range(60):
        middle = (low + high) / 2
        early = process.signal(middle).log() - process.std(middle).log() > log_snr
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return (low + high) / 2
