"""The probability-flow ODE: Heun's method in fixed steps, Dormand and Prince's with error control.

Both end at t_eps and, with `denoise`, take the mean of one reverse step from there to 0, as the released code means to.
Shapes: B items; states complex [B, 1, F, K].
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from generative.diffusion.dormand_prince import Tolerance, integrate
from generative.methods.sgmse.noise import Noise
from generative.methods.sgmse.processes import Process
from generative.methods.sgmse.samplers.common import (
    Counted,
    Observer,
    Sampled,
    Span,
    check_steps,
    flow,
    frame_mask,
    reverse_step,
    time,
)
from generative.methods.sgmse.wrapping import Model


@torch.no_grad()
def heun(
    score: Model,
    process: Process,
    y: Tensor,
    noise: Noise,
    *,
    steps: int = 15,
    start: float | None = None,
    end: float | None = None,
    denoise: bool = True,
    observer: Observer | None = None,
) -> Sampled:
    """Heun's second-order method in `steps` equal steps; calls: 2 steps, and one to denoise.

    Bridges are stiff near T, where the pull has no bound: start them earlier, or take `exponential`.

    Args:
        score: of the noisy state.
        process: forward process.
        y: noisy spectrogram.
        noise: "prior" only.
        steps: at least 1.
        start: first time; None: T.
        end: last time; None: t_eps.
        denoise: whether to go from `end` to 0 by one mean step.
        observer: called after each step.
    """
    check_steps(steps)
    span = Span.of(process, start, end)
    model, times = Counted(score, y), span.grid(steps + 1)
    x = process.prior(y, noise("prior", 0), span.start)
    for step, (t, later) in enumerate(itertools.pairwise(times)):
        length = later - t
        slope = flow(process, model(x, t), x, y, time(t))
        ahead = x + length * slope
        x = x + length / 2 * (slope + flow(process, model(ahead, later), ahead, y, time(later)))
        if observer is not None:
            observer(step, x)
    return Sampled(_denoised(model, process, x, span) if denoise else x, model.calls)


@torch.no_grad()
def ode(
    score: Model,
    process: Process,
    y: Tensor,
    noise: Noise,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    start: float | None = None,
    end: float | None = None,
    denoise: bool = True,
    frames: Tensor | None = None,
) -> Sampled:
    """Dormand and Prince's 5(4) with error control for each item; calls: as many as an item needs.

    The released code controls the error of the whole batch at once.

    Args:
        score: of the noisy state.
        process: forward process.
        y: noisy spectrogram.
        noise: "prior" only.
        rtol: relative tolerance, above 0.
        atol: absolute tolerance, above 0.
        start: first time; None: T.
        end: last time; None: t_eps.
        denoise: whether to go from `end` to 0 by one mean step.
        frames: int64[B], frames of each item before padding, whose errors count; None: all.
    """
    span, model = Span.of(process, start, end), Counted(score, y)

    def slope(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return flow(process, model.rows(x, t, rows), x, y[rows], t)

    x = process.prior(y, noise("prior", 0), span.start)
    counted = None if frames is None else frame_mask(y, frames).expand_as(y)
    x = integrate(slope, x, span.start, span.end, Tolerance(rtol, atol), counted)
    return Sampled(_denoised(model, process, x, span) if denoise else x, model.calls)


def _denoised(model: Counted, process: Process, x: Tensor, span: Span) -> Tensor:
    return reverse_step(process, model(x, span.end), x, model.y, span.end, span.end)[1]
