"""DPS (Chung et al. 2023, arXiv 2209.14687) as its released code has it: an ancestral or DDIM step, then data.

The step length is that of the code: the gradient of the norm itself, one norm for each image (the code has one over the
batch, which couples images). The clamp of z0 is part of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.problem import Problem, size_of
from generative.methods.stsl.walk import Init, Restored, start, walk


@dataclass(frozen=True)
class Dps:
    """How DPS samples.

    Args:
        steps: T.
        scale: of the gradient (released: 0.3; inpainting 0.5, phase retrieval 1).
        data_loss: norm (the code's), or squared.
        sampler: ddpm (ancestral), or ddim.
        ddim_eta: noise of ddim.
        clip: z0 into [-1, 1], for pixels.
        init: noise, as released.
    """

    steps: int = 1000
    scale: float = 0.3
    data_loss: Literal["squared", "norm"] = "norm"
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    ddim_eta: float = 0.0
    clip: bool = True
    init: Init = "noise"


@dataclass(frozen=True)
class DpsStep:
    """One step: before and after guidance, Tweedie's mean (clipped), the norm [B] and the residual ratio."""

    unguided: Tensor
    guided: Tensor
    z0: Tensor
    data: Tensor
    ratio: Tensor


def dps(problem: Problem, settings: Dps, levels: Sequence[Level] | None = None) -> Restored:
    """Sample by DPS."""
    levels = levels or problem.prior.levels(settings.steps)

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        drawn = part.draws("ddpm", number, z.shape[1:]).to(z)
        found = dps_step(part, z, level, target, settings, drawn)
        return found.guided, found.ratio

    return walk(problem, start(problem, levels, settings.init), levels, step)


def dps_step(problem: Problem, z: Tensor, level: Level, target: Level, settings: Dps, drawn: Tensor) -> DpsStep:
    """x' - scale grad |y - A x0|; `drawn`: N(0, 1) of the ancestral step."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        learned: Tensor | None = None
        if problem.prior.both is None:
            e = problem.noise(z, level)
        else:
            problem.count(len(z))
            e, learned = problem.prior.both(z, level)
        z0 = clean(z, e, level)
        z0 = z0.clamp(-1, 1) if settings.clip and not problem.prior.latent else z0
        residual = problem.misfit(problem.decode(z0))
        data = size_of(residual, settings.data_loss)
        gradient = problem.gradient(data, z)
    with torch.no_grad():
        if settings.sampler == "ddim":
            # e of the clipped mean, as the released sampler has it
            e = (z - level.signal * z0) / level.noise
            ahead = ddim_step(z0, e, level, target, settings.ddim_eta, drawn)
        else:
            ahead = ancestral(z, z0, level, target, learned, drawn)
        return DpsStep(
            ahead, ahead - settings.scale * gradient, z0.detach(), data.detach(), problem.ratio(residual.detach())
        )


def ancestral(z: Tensor, z0: Tensor, level: Level, target: Level, learned: Tensor | None, drawn: Tensor) -> Tensor:
    """c1 z0 + c2 z + std n: DDPM's step; no noise in the last, whose target is free of it (or is the level itself).

    The variance is the posterior's, or between it and beta (in logarithms) where the network predicts v.
    """
    bar, before = level.alpha_bar, target.alpha_bar
    alpha = bar / before
    beta = 1 - alpha
    mean = beta * math.sqrt(before) / (1 - bar) * z0 + (1 - before) * math.sqrt(alpha) / (1 - bar) * z
    if target.noise == 0 or beta <= 0:
        return mean
    least = math.log(beta * (1 - before) / (1 - bar))
    if learned is None:
        return mean + math.exp(0.5 * least) * drawn
    share = (learned.detach() + 1) / 2
    return mean + (0.5 * (share * math.log(beta) + (1 - share) * least)).exp() * drawn
