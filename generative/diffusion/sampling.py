"""Samples of a denoiser as its settings say."""

from __future__ import annotations

import math

from torch import Tensor

from generative.diffusion.denoising_samplers import (
    Churn,
    Denoiser,
    Noise,
    ddim,
    dpm_solver_2m,
    dpm_solver_2s,
    euler,
    heun,
    start,
)
from generative.diffusion.noise_levels import karras_grid, with_zero
from generative.diffusion.sampling_config import EdmSamplingConfig


def draw(s: EdmSamplingConfig, denoise: Denoiser, z: Tensor, noise: Noise) -> Tensor:
    """float32, of the shape of z: from z at the grid's first level to its end, 0.

    Args:
        s: sampler, grid, churn; its guidance is the denoiser's own business.
        denoise: D.
        z: N(0, 1), of the samples' shape, where the network is.
        noise: what is added on the way.
    """
    grid = with_zero(karras_grid(s.steps, s.sigma_min, s.sigma_max, s.rho))
    x = start(z, grid)
    if s.sampler == "ddim":
        return ddim(denoise, x, grid, s.eta, noise).float()
    if s.sampler == "dpm_solver_2s":
        return dpm_solver_2s(denoise, x, grid).float()
    if s.sampler == "dpm_solver_2m":
        return dpm_solver_2m(denoise, x, grid).float()
    churn = Churn(s.churn, s.churn_min, math.inf if s.churn_max is None else s.churn_max, s.churn_noise)
    return (heun if s.sampler == "heun" else euler)(denoise, x, grid, churn, noise).float()
