"""LDPS, GML-DPS and PSLD (Rout et al. 2023, arXiv 2307.00619) as the released code has them.

One DDIM step, then minus the gradient of omega |A D(z0) - y| + gamma |E(g) - z0|, with g = A^+ y + D(z0) - A^+ A D(z0)
(PSLD), g = D(z0) (GML-DPS), or gamma = 0 (LDPS). The code's "transposes" (identity for blur, nearest neighbours for
super-resolution) are no adjoints: `legacy` has them, the default is the pseudo-inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.problem import Problem, size_of
from generative.methods.stsl.surrogate import glued
from generative.methods.stsl.walk import Init, Restored, start, walk


@dataclass(frozen=True)
class Psld:
    """How PSLD samples.

    Args:
        steps: T.
        omega: of the data term.
        gamma: of the gluing term; 0 is LDPS.
        glue: psld, or fixed_point (GML-DPS).
        ddim_eta: noise of DDIM's steps.
        noisy_prediction: add measurement noise to the prediction, as the code does.
        legacy: the code's "transposes" in place of A^+.
        init: noise, as released.
    """

    steps: int = 1000
    omega: float = 1.0
    gamma: float = 0.1
    glue: Literal["psld", "fixed_point"] = "psld"
    ddim_eta: float = 0.0
    noisy_prediction: bool = False
    legacy: bool = False
    init: Init = "noise"


@dataclass(frozen=True)
class PsldStep:
    """One step: the state after it, Tweedie's mean, the gradient, losses [B] (total, data, glue), residual ratio."""

    z: Tensor
    z0: Tensor
    gradient: Tensor
    total: Tensor
    data: Tensor
    glue: Tensor
    ratio: Tensor


def psld(problem: Problem, settings: Psld, levels: Sequence[Level] | None = None) -> Restored:
    """Sample by PSLD, LDPS or GML-DPS."""
    levels = levels or problem.prior.levels(settings.steps)

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        drawn = part.draws("ddim", number, z.shape[1:]).to(z) if settings.ddim_eta else None
        noise = part.draws("prediction", number, part.operator.measured).to(z) if settings.noisy_prediction else None
        found = psld_step(part, z, level, target, settings, drawn, noise)
        return found.z, found.ratio

    return walk(problem, start(problem, levels, settings.init), levels, step)


def psld_step(
    problem: Problem,
    z: Tensor,
    level: Level,
    target: Level,
    settings: Psld,
    drawn: Tensor | None,
    noise: Tensor | None = None,
) -> PsldStep:
    """One step; `drawn`: noise of DDIM; `noise`: added to the prediction times sigma."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        e = problem.noise(z, level)
        z0 = clean(z, e, level)
        x = problem.decode(z0)
        residual = problem.misfit(x)
        data = size_of(residual if noise is None else residual - problem.sigma * noise, "norm")
        total, glue = settings.omega * data, torch.zeros_like(data)
        if settings.gamma:
            glue = size_of(problem.encode(_glued(problem, x, settings)) - z0, "norm")
            total = total + settings.gamma * glue
        gradient = problem.gradient(total, z, bool(settings.gamma))
    with torch.no_grad():
        ahead = ddim_step(z0, e, level, target, settings.ddim_eta, drawn) - gradient
    ratio = problem.ratio(residual)
    return PsldStep(ahead, z0.detach(), gradient, total.detach(), data.detach(), glue.detach(), ratio)


def _glued(problem: Problem, x: Tensor, settings: Psld) -> Tensor:
    if settings.glue == "fixed_point":
        return x
    if not settings.legacy:
        return glued(problem, x)

    def transpose(y: Tensor) -> Tensor:
        return y if y.shape == x.shape else F.interpolate(y, x.shape[-2:], mode="nearest")

    return transpose(problem.y) + x - transpose(problem.operator(x))
