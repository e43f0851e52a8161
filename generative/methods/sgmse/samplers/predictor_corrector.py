"""Predictor-corrector sampling, the published default (Richter et al. 2023, arXiv 2208.05830).

Shapes: B items; states complex [B, 1, F, K].
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.noise import Noise
from generative.methods.sgmse.processes import Process, spread
from generative.methods.sgmse.samplers.common import (
    Counted,
    Observer,
    Sampled,
    Span,
    check_steps,
    frame_mask,
    reverse_step,
    time,
)
from generative.methods.sgmse.wrapping import Model

Corrector = Literal["ald", "langevin", "none"]
StepRule = Literal["grid", "uniform"]


@torch.no_grad()
def predictor_corrector(
    score: Model,
    process: Process,
    y: Tensor,
    noise: Noise,
    *,
    steps: int = 30,
    corrector: Corrector = "ald",
    corrector_steps: int = 1,
    snr: float = 0.5,
    step_rule: StepRule = "grid",
    start: float | None = None,
    end: float | None = None,
    denoise: bool = True,
    frames: Tensor | None = None,
    observer: Observer | None = None,
) -> Sampled:
    """At each of `steps` times: correctors, then one step back by Euler and Maruyama.

    Calls: steps (corrector_steps + 1), or `steps` without a corrector. Where a score is 0 langevin does nothing.

    Args:
        score: of the noisy state.
        process: forward process.
        y: noisy spectrogram.
        noise: "prior" once; "corrector" at step * corrector_steps + i; "predictor" at each step that noise is added in.
        steps: at least 1. Published: 30; 50 for dereverberation.
        corrector: ald: annealed Langevin dynamics; langevin: step size by the norms of noise and score.
        corrector_steps: at each time.
        snr: r of the correctors, above 0. Published: 0.5; 0.33 for dereverberation.
        step_rule: grid: the distance to the next time, and from the last one to 0 (released code since June 2024);
            uniform: start / steps in every step (before, and in most published figures).
        start: first time; None: T.
        end: last time that the score is asked at; None: t_eps.
        denoise: return the last mean, without the last noise.
        frames: int64[B], frames of each item before padding, for the norms of langevin; None: all.
        observer: called after each step.
    """
    check_steps(steps)
    _check_corrector(corrector, corrector_steps, snr)
    span = Span.of(process, start, end)
    model, times = Counted(score, y), span.grid(steps)
    lengths = step_lengths(times, step_rule)
    x = mean = process.prior(y, noise("prior", 0), span.start)
    for step, (t, length) in enumerate(zip(times, lengths, strict=True)):
        for turn in range(0 if corrector == "none" else corrector_steps):
            z = noise("corrector", step * corrector_steps + turn)
            value = model(x, t)
            size = ald_size(process, t, snr) if corrector == "ald" else langevin_size(value, z, snr, frames)
            x, _ = corrected(x, value, z, size)
        last = denoise and step + 1 == steps
        value = model(x, t)
        x, mean = reverse_step(process, value, x, y, t, length, None if last else noise("predictor", step))
        if observer is not None:
            observer(step, x)
    return Sampled(mean if denoise else x, model.calls)


def euler_maruyama(score: Model, process: Process, y: Tensor, noise: Noise, *, steps: int = 30) -> Sampled:
    """The reverse process in `steps` equal steps by Euler and Maruyama: predictors alone; calls: steps."""
    return predictor_corrector(score, process, y, noise, steps=steps, corrector="none", step_rule="uniform")


def step_lengths(times: list[float], rule: StepRule) -> list[float]:
    """dt of each step, see `predictor_corrector`."""
    if rule == "uniform":
        return [times[0] / len(times)] * len(times)
    return [t - later for t, later in zip(times, [*times[1:], 0.0], strict=True)]


def ald_size(process: Process, t: float, snr: float) -> Tensor:
    """Step size 2 (snr std(t))^2, float64[]."""
    return 2 * (snr * process.std(time(t))).square()


def langevin_size(score: Tensor, noise: Tensor, snr: float, frames: Tensor | None = None) -> Tensor:
    """Step size 2 (snr |z| / |score|)^2 of each item by its own norms, [B].

    The released code averages the norms over the batch, so that an item's result depends on its company.
    """
    norm = _norm(score, frames)
    return torch.where(norm > 0, 2 * (snr * _norm(noise, frames) / norm).square(), 0.0)


def corrected(x: Tensor, score: Tensor, noise: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """One Langevin step of size float[B] or []: mean = x + size score, state = mean + sqrt(2 size) z: (state, mean)."""
    mean = x + spread(size, x) * score
    return mean + spread((2 * size).sqrt(), x) * noise, mean


def _norm(values: Tensor, frames: Tensor | None) -> Tensor:
    squares = values.abs().square()
    if frames is not None:
        squares = squares * frame_mask(values, frames)
    return squares.flatten(1).sum(1).sqrt()


def _check_corrector(corrector: Corrector, corrector_steps: int, snr: float) -> None:
    if corrector != "none" and (corrector_steps < 1 or snr <= 0):
        raise ConfigError(
            f"corrector={corrector} with corrector_steps={corrector_steps}, snr={snr}",
            expected="at least one step and snr above 0",
            remedy="take 1 and 0.5, or corrector=none",
        )
