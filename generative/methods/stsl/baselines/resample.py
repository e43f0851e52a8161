"""ReSample (Song et al. 2024, arXiv 2307.08123) after its released code: DDIM with now and then hard data consistency.

Every step a gradient step of scale abar / 2. At each tenth index of the last two thirds: a few more DDIM steps towards
data, optimisation of the image (index >= steps / 3) or of the latent (below), and a draw between the result and the
state after the gradient step. A last optimisation of the latent ends the run. The further steps tell the network the
times that they stand at; the released code takes their alphas one index off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from generative.methods.stsl.baselines.optimise import optimised
from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.problem import Problem, size_of
from generative.methods.stsl.walk import Restored, start, walk


@dataclass(frozen=True)
class Resample:
    """How ReSample samples.

    Args:
        steps: T.
        every: indices at which data are made consistent are its multiples.
        ahead: DDIM steps before that.
        gamma: 40, of the draw's variance.
        scale: of the gradient at all steps, times abar.
        pixel_rate, pixel_steps, latent_rate, latent_steps: of the optimisation.
        enough: mean square of the residual at which it ends.
        patience: iterations; the latent's also ends where its loss was lower so many before.
    """

    steps: int = 500
    every: int = 10
    ahead: int = 5
    gamma: float = 40.0
    scale: float = 0.5
    pixel_rate: float = 1e-2
    pixel_steps: int = 2000
    latent_rate: float = 5e-3
    latent_steps: int = 500
    enough: float = 1e-6
    patience: int = 200


def resample(problem: Problem, settings: Resample) -> Restored:
    """Sample by ReSample."""
    levels = problem.prior.levels(settings.steps)
    count = len(levels) - 1

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        moved, ratio = _step(part, z, level, target, settings)
        index = count - 1 - number
        if index == 0:
            return _latent(part, moved, settings), ratio
        if index % settings.every or index > count - count // 3:
            return moved, ratio
        found = _ahead(part, moved, levels[number + 1 : number + 2 + settings.ahead])
        if index >= count // 3:
            image = optimised(
                part, part.decode(found).detach(), settings.pixel_rate, settings.pixel_steps, settings.enough, True
            )
            with torch.no_grad():
                found = part.encode(image)
        else:
            found = _latent(part, found, settings)
        drawn = part.draws("resample", number, z.shape[1:]).to(z)
        return drawn_around(found, moved, level, target, settings.gamma, drawn), ratio

    return walk(problem, start(problem, levels, "noise"), levels, step)


def drawn_around(z0: Tensor, z: Tensor, level: Level, target: Level, gamma: float, drawn: Tensor) -> Tensor:
    """A draw at `target` between a consistent z0 and the chain's z there (stochastic resampling)."""
    now, before = level.alpha_bar, target.alpha_bar
    variance = gamma * (1 - before) / (1 - now) * (1 - now / before)
    if variance <= 0:
        return math.sqrt(before) * z0
    mean = (variance * math.sqrt(before) * z0 + (1 - before) * z) / (variance + 1 - before)
    return mean + drawn / math.sqrt(1 / variance + 1 / (1 - before))


def _step(problem: Problem, z: Tensor, level: Level, target: Level, settings: Resample) -> tuple[Tensor, Tensor]:
    """(after DDIM and the gradient step, residual ratio)."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        e = problem.noise(z, level)
        z0 = clean(z, e, level)
        residual = problem.misfit(problem.decode(z0))
        gradient = problem.gradient(size_of(residual, "norm"), z)
    with torch.no_grad():
        plain = ddim_step(z0, e, level, target, 0.0, None).detach()
    return plain - settings.scale * level.alpha_bar * gradient, problem.ratio(residual)


@torch.no_grad()
def _ahead(problem: Problem, z: Tensor, levels: Sequence[Level]) -> Tensor:
    """Tweedie's mean after DDIM along `levels`."""
    for level, target in pairwise(levels):
        e = problem.noise(z, level)
        z0 = clean(z, e, level)
        z = ddim_step(z0, e, level, target, 0.0, None)
    return z0


def _latent(problem: Problem, z0: Tensor, settings: Resample) -> Tensor:
    rate, most = settings.latent_rate, settings.latent_steps
    return optimised(problem, z0, rate, most, settings.enough, patience=settings.patience)
