"""STSL: a few steps of gradient descent on the surrogate loss at each noise level, then a step of DDIM.

Also guided sampling: DDIM along e - weight b g, with g any guidance (covariance-aware, exact).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generative.methods.stsl.covariance import Guidance
from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.problem import Problem
from generative.methods.stsl.surrogate import Surrogate, Terms, surrogate
from generative.methods.stsl.walk import Init, Restored, start, walk


@dataclass(frozen=True)
class Stsl:
    """How STSL samples. The defaults are the recommended form; `PAPER` is what is known of the paper's.

    Args:
        terms: of the loss; their weights are step sizes.
        steps: T.
        inner: K, updates at each level.
        init: q_sample, ddim_inversion (the paper's: T more rows), noise.
        ddim_eta: noise of DDIM's steps; 0 with ddim_inversion gives one result for all samples of a measurement.
        early_exit: an image's updates at a level end once its residual is below that of noise alone.
    """

    terms: Terms = field(default_factory=lambda: Terms(weight=0.6, data_loss="norm", eta=1.0, probe="scaled"))
    steps: int = 50
    inner: int = 5
    init: Init = "q_sample"
    ddim_eta: float = 0.0
    early_exit: bool = True

    @property
    def collapses(self) -> bool:
        """Whether all samples of a measurement are (but for the probes) one: no noise enters anywhere."""
        return self.init == "ddim_inversion" and self.ddim_eta == 0


PAPER = Stsl(Terms(weight=1.0, data_loss="squared", eta=0.02, probe="unit"), init="ddim_inversion", early_exit=False)
"""Eq. 4 and the algorithm as far as they are known; the weight of the data term is not (it is tuned by task)."""


def stsl(problem: Problem, settings: Stsl, levels: Sequence[Level] | None = None) -> Restored:
    """Sample by STSL; `levels`: None: the prior's own for `settings.steps`."""
    levels = levels or problem.prior.levels(settings.steps)

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        return _step(part, z, number, level, target, settings)

    return walk(problem, start(problem, levels, settings.init), levels, step)


def _step(
    problem: Problem, z: Tensor, number: int, level: Level, target: Level, settings: Stsl
) -> tuple[Tensor, Tensor]:
    ratio = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
    going = torch.ones_like(ratio, dtype=torch.bool)
    for k in range(settings.inner):
        going = going & z.flatten(1).isfinite().all(1)
        if not bool(going.any()):
            break
        moved, found = update(problem.rows(going), z[going], level, settings.terms, number * settings.inner + k)
        if settings.early_exit:
            # those that only noise is left of stay where they are
            moved = torch.where((found.ratio < 1).reshape(-1, *[1] * (z.dim() - 1)), z[going], moved)
        z, ratio = z.clone(), ratio.masked_scatter(going, found.ratio)
        z[going] = moved
        if settings.early_exit:
            going = going & ~(ratio < 1)
    with torch.no_grad():
        e = problem.noise(z, level)
        drawn = problem.draws("ddim", number, z.shape[1:]).to(z) if settings.ddim_eta else None
        return ddim_step(clean(z, e, level), e, level, target, settings.ddim_eta, drawn), ratio


def update(problem: Problem, z: Tensor, level: Level, terms: Terms, step: int) -> tuple[Tensor, Surrogate]:
    """z - grad L(y, z), and the loss at z."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        found = surrogate(problem, z, level, terms, step)
        gradient = problem.gradient(found.loss, z, bool(terms.glue_weight))
    return z.detach() - gradient, found


@dataclass(frozen=True)
class GuidedSampling:
    """DDIM with guidance.

    Args:
        steps: T.
        weight: of the guidance; 1 in theory.
        ddim_eta: noise of DDIM's steps.
        init: see `walk.start`.
        solver_steps: of `mmps`: products with the network's Jacobian at each level, at most.
    """

    steps: int = 50
    weight: float = 1.0
    ddim_eta: float = 1.0
    init: Init = "noise"
    solver_steps: int = 5


def guided(
    problem: Problem, guidance: Guidance, settings: GuidedSampling, levels: Sequence[Level] | None = None
) -> Restored:
    """Sample with e - weight b grad log p(y | z) in place of e."""
    levels = levels or problem.prior.levels(settings.steps)

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        found = guidance(part, z, level)
        e = found.noise - settings.weight * level.noise * found.score
        drawn = part.draws("ddim", number, z.shape[1:]).to(z) if settings.ddim_eta else None
        return ddim_step(clean(z, e, level), e, level, target, settings.ddim_eta, drawn), found.ratio

    return walk(problem, start(problem, levels, settings.init), levels, step)


Sampler = Callable[[Problem], Restored]
