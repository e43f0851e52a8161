"""Noise levels at which sampling stops on its way: grids of sigma, from high to low."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.errors import ConfigError


def karras_grid(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """sigma_i = (a + i / (N - 1) (b - a))^rho, a = sigma_max^(1 / rho), b = sigma_min^(1 / rho).

    Source: Karras et al. 2022, eq. 5.

    Args:
        steps: N; a single one is sigma_max.
        sigma_min: of the last, above 0.
        sigma_max: of the first.
        rho: how much shorter steps get at low noise.

    Returns:
        float64[N], on the CPU, exactly from sigma_max to sigma_min.

    Raises:
        ConfigError: no steps, or levels that are not 0 < sigma_min < sigma_max.
    """
    if steps < 1 or not 0 < sigma_min < sigma_max or rho <= 0:
        raise ConfigError(
            f"a grid of {steps} noise levels from {sigma_max:g} to {sigma_min:g} with rho={rho:g}",
            "one step or more, 0 < sigma_min < sigma_max, and rho above 0",
            "correct sampling.steps, sampling.sigma_min, sampling.sigma_max or sampling.rho",
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    grid: Tensor = (high + ramp * (low - high)) ** rho
    grid[0] = sigma_max
    if steps > 1:
        grid[-1] = sigma_min
    return grid


def with_zero(grid: Tensor) -> Tensor:
    """The grid with a final 0: float64[N + 1] for N steps."""
    return torch.cat((grid, grid.new_zeros(1)))
