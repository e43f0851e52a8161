"""Fine-tuning for few steps by correcting the reverse process (CRP: Lay et al. 2024, arXiv 2309.09677).

Shapes: B items; spectrograms complex [B, 1, F, K].
"""

from __future__ import annotations

import torch
from torch import Tensor

from generative.methods.sgmse.losses import half_square
from generative.methods.sgmse.noise import Noise
from generative.methods.sgmse.processes import Process
from generative.methods.sgmse.samplers.common import Counted, Span, check_steps, reverse_step, time
from generative.methods.sgmse.samplers.predictor_corrector import StepRule, step_lengths
from generative.methods.sgmse.wrapping import Model


def corrected_reverse(
    score: Model,
    process: Process,
    x0: Tensor,
    y: Tensor,
    noise: Noise,
    *,
    steps: int = 1,
    start: float = 0.5,
    step_rule: StepRule = "grid",
) -> tuple[Tensor, Tensor]:
    """0.5 sum |mean - mu(x0, y, t - dt)|^2 of the last of `steps` reverse steps.

    The steps before it run without gradient, from the prior at `start` as in sampling; so the network learns to
    correct what these steps do wrong. With the grid rule t - dt = 0, and the target is x0.

    Args:
        score: of the network that is trained.
        process: forward process.
        x0: clean spectrogram.
        y: noisy spectrogram.
        noise: "prior" once, "predictor" at each step but the last.
        steps: at least 1, the published number.
        start: first time.
        step_rule: see `predictor_corrector`.

    Returns:
        The loss, float[B] with gradient, and the network calls of each item, int64[B]: only the last has a backward.
    """
    check_steps(steps)
    span = Span.of(process, start, None)
    model, times = Counted(score, y), span.grid(steps)
    lengths = step_lengths(times, step_rule)
    x = process.prior(y, noise("prior", 0), span.start)
    with torch.no_grad():
        for step in range(steps - 1):
            t, value = times[step], model(x, times[step])
            x, _ = reverse_step(process, value, x, y, t, lengths[step], noise("predictor", step))
    _, mean = reverse_step(process, model(x, times[-1]), x, y, times[-1], lengths[-1])
    target = process.mean(x0, y, time(max(times[-1] - lengths[-1], 0.0)))
    return half_square(mean - target), model.calls
