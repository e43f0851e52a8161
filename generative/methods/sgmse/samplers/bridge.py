"""Samplers of the Schroedinger bridge with data prediction (Jukic et al. 2024, arXiv 2407.16074).

Coefficients are functions of the grid alone and are computed in float64: near T they are ratios of numbers of the size
of eps. Shapes: B items; states complex [B, 1, F, K].
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.bridges import SBVE
from generative.methods.sgmse.noise import Noise
from generative.methods.sgmse.samplers.common import Counted, Observer, Sampled, Span, check_steps, time
from generative.methods.sgmse.wrapping import Model


@dataclass(frozen=True)
class Coefficients:
    """x <- state x + estimate x0 + noisy y + noise z."""

    state: float
    estimate: float
    noisy: float
    noise: float


def ode_coefficients(process: SBVE, t: float, later: float) -> Coefficients:
    """From time t back to `later` without noise.

    As published, eps and all: from T, where it is not small beside what it is added to, the weights add up to 1 +
    sigma sigma_bar (1 - 1 / sigma_T) / sigma_T at `later` (5 % too much at the usual settings), from elsewhere to 1.
    `exponential` with order 1 is the same sampler without that.
    """
    eps = process.eps
    s_t, bar_t, s, bar = _sigmas(process, t, later)
    return Coefficients(
        state=s * bar / (s_t * bar_t + eps),
        estimate=(bar**2 - bar_t * s * bar / (s_t + eps)) / (process.sigma_end**2 + eps),
        noisy=(s**2 - s_t * s * bar / (bar_t + eps)) / (process.sigma_end**2 + eps),
        noise=0.0,
    )


def sde_coefficients(process: SBVE, t: float, later: float) -> Coefficients:
    """From time t back to `later` with fresh noise."""
    s_t, _, s, _ = _sigmas(process, t, later)
    kept = s**2 / (s_t**2 + process.eps)
    return Coefficients(kept, 1 - kept, 0.0, s * math.sqrt(1 - kept))


@torch.no_grad()
def bridge(
    denoiser: Model,
    process: SBVE,
    y: Tensor,
    noise: Noise,
    *,
    steps: int = 50,
    kind: Literal["ode", "sde"] = "ode",
    network_time: Literal["current", "previous"] = "current",
    end: float = 1e-4,
    least_network_time: float = 0.0,
    observer: Observer | None = None,
) -> Sampled:
    """From y at T to `end` in `steps` equal steps; calls: steps (the released code reports 50 whatever they are).

    Args:
        denoiser: of the state.
        process: forward process.
        y: noisy spectrogram.
        noise: "predictor" at each step but the last, where kind is "sde".
        steps: at least 1; 1 is one prediction.
        kind: without or with fresh noise.
        network_time: the time that the network is told: that of the new state (released code) or of the one that it is
            given.
        end: last time, in (0, T).
        least_network_time: the network is told no earlier time; released models were trained from 0.03 on and are yet
            asked at 1e-4. 0 leaves it so.
        observer: called after each step.

    Raises:
        ConfigError: a least time beyond T.
    """
    check_steps(steps)
    if least_network_time > process.T:
        raise ConfigError(f"least_network_time={least_network_time}", f"at most T={process.T}", "take t_eps, or 0")
    model, times = Counted(denoiser, y), Span.of(process, None, end).grid(steps + 1)
    coefficients = ode_coefficients if kind == "ode" else sde_coefficients
    x = y
    for step, (t, later) in enumerate(itertools.pairwise(times)):
        told = max(later if network_time == "current" else t, least_network_time)
        by = coefficients(process, t, later)
        x = by.state * x + by.estimate * model(x, told) + by.noisy * y
        if by.noise and step + 1 < steps:
            x = x + by.noise * noise("predictor", step)
        if observer is not None:
            observer(step, x)
    return Sampled(x, model.calls)


def _sigmas(process: SBVE, t: float, later: float) -> tuple[float, float, float, float]:
    """sigma and sigma_bar at t, then at the later step's time."""
    laws = [law(time(at)).item() for at in (t, later) for law in (process.sigma, process.sigma_bar)]
    return laws[0], laws[1], laws[2], laws[3]
