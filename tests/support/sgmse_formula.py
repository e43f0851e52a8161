"""Weights and inputs of the full-size network that a formula gives instead of a file; see tests/golden/sgmse."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

COLUMNS = 1024


def sines(step: float, start: float, count: int) -> Tensor:
    """sin(step i + start) for i < count in float64, by the theorem of addition: few sines, many products."""
    rows = start + step * COLUMNS * torch.arange(-(-count // COLUMNS), dtype=torch.float64)[:, None]
    columns = step * torch.arange(COLUMNS, dtype=torch.float64)
    return (rows.sin() * columns.cos()).addcmul_(rows.cos(), columns.sin()).flatten()[:count]


def formula_weights(
    shapes: Mapping[str, tuple[int, ...]], norms: set[str], frequencies: str = "all_modules.0.W"
) -> dict[str, Tensor]:
    """Weights by released names, in the order of the parameters; `norms`: which are scales of norms; `frequencies`: of
    the time embedding."""
    found = {}
    for j, (name, shape) in enumerate(shapes.items()):
        base = sines(0.7 * (1 + 0.01 * (j % 13)), 0.37 * (j + 1), math.prod(shape)).view(shape)
        if name == frequencies:
            weight = 4 * base
        elif len(shape) >= 2:
            weight = base.mul_(math.sqrt(2 / (shape[0] if name.endswith(".W") else math.prod(shape[1:]))))
        else:
            weight = 1 + 0.1 * base if name in norms else 0.05 * base
        found[name] = weight.float()
    return found


def formula_spectrogram(frequency: float, bins: int, frames: int) -> Tensor:
    """complex64[1, 1, F, K]."""
    q = torch.arange(bins * frames, dtype=torch.float64).view(1, 1, bins, frames)
    return (0.3 * torch.complex((frequency * q).sin(), (2.23 * frequency * q + 0.5).cos())).to(torch.complex64)
