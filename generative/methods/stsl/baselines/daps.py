"""DAPS and LatentDAPS (Zhang et al. 2025, arXiv 2407.01521) with Langevin steps, as the released code has them.

At each level of an annealing grid: an estimate of z0 by a few steps of the flow, Langevin steps on
|y - A D(z0)|^2 / (2 tau^2) + |z0 - estimate|^2 / (2 s^2) (the network is not asked), and noise of the next level. The
damped Hamiltonian steps of the latent configurations are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from generative.diffusion.noise_levels import karras_grid
from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.prior import Prior
from generative.methods.stsl.problem import Problem
from generative.methods.stsl.walk import Restored, start, walk


@dataclass(frozen=True)
class Daps:
    """How DAPS samples.

    Args:
        steps: levels of annealing (released: 200 for pixels, 50 for latents).
        flow_steps: Euler steps of each estimate (5; 2).
        langevin_steps: of each level.
        rate: first step length of Langevin (released: 1e-4 for super-resolution, blur and random inpainting, 5e-5 for
            boxes, 2e-5 for HDR).
        last_rate: relative to the first, reached linearly.
        tau: standard deviation of the data term, in place of sigma.
        sigma_max, sigma_min: of the annealing.
        flow_end: where the flow ends.
        clamp: greatest magnitude of a latent's data gradient.
    """

    steps: int = 200
    flow_steps: int = 5
    langevin_steps: int = 100
    rate: float = 1e-4
    last_rate: float = 0.01
    tau: float = 0.01
    sigma_max: float = 100.0
    sigma_min: float = 0.1
    flow_end: float = 0.01
    clamp: float = 1.0


def daps(problem: Problem, settings: Daps) -> Restored:
    """Sample by DAPS."""
    levels = _levels(problem.prior, settings)

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            estimate = _flow(part, z, level, settings)
        share = number / settings.steps
        rate = settings.rate * (1 + share * (settings.last_rate - 1))
        z0, ratio = _langevin(part, estimate, level.sigma, rate, number, settings)
        drawn = part.draws("anneal", number, z.shape[1:]).to(z)
        return target.signal * z0 + target.noise * drawn, ratio

    return walk(problem, start(problem, levels, "noise"), levels, step)


def _levels(prior: Prior, settings: Daps) -> list[Level]:
    """Levels that the network knows near a polynomial grid, then no noise."""
    found = [prior.nearest(sigma) for sigma in karras_grid(settings.steps, settings.sigma_min, settings.sigma_max)]
    falling = [level for before, level in zip([None, *found[:-1]], found, strict=True) if level != before]
    return [*falling, Level(0, 1.0, 0.0)]


def _flow(problem: Problem, z: Tensor, level: Level, settings: Daps) -> Tensor:
    """An estimate of z0 by Euler's method (DDIM) on a grid of its own down to `flow_end`."""
    if level.sigma <= settings.flow_end:
        return clean(z, problem.noise(z, level), level)
    grid = karras_grid(settings.flow_steps + 1, settings.flow_end, level.sigma)
    stops: Sequence[Level] = [level, *(problem.prior.nearest(float(sigma)) for sigma in grid[1:])]
    for here, there in pairwise(stops):
        if there.sigma < here.sigma:
            e = problem.noise(z, here)
            z = ddim_step(clean(z, e, here), e, here, there, 0.0, None)
    return z / stops[-1].signal


def _langevin(
    problem: Problem, estimate: Tensor, sigma: float, rate: float, number: int, settings: Daps
) -> tuple[Tensor, Tensor]:
    z0, ratio = estimate, torch.full((len(estimate),), torch.nan, dtype=torch.float64, device=estimate.device)
    for i in range(settings.langevin_steps):
        gradient, residual = problem.data_gradient(z0)
        ratio = problem.ratio(residual)
        gradient = gradient / settings.tau**2
        if problem.prior.latent:
            gradient = gradient.clamp(-settings.clamp, settings.clamp)
        drawn = problem.draws("langevin", number * settings.langevin_steps + i, z0.shape[1:]).to(z0)
        z0 = z0 - rate * (gradient + (z0 - estimate) / sigma**2) + math.sqrt(2 * rate) * drawn
    return z0, ratio
