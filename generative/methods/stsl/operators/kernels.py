"""Blur kernels: the Gaussian as `scipy.ndimage.gaussian_filter` of a delta has it, and random paths of a camera.

The path is Levi Borodenko's generator (spec of motion blur in DPS); what is drawn of it comes from a seed of its own,
and the raster is ours: statistics agree with the released one, bits do not.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.randomness import stream_key

FINE = 2
"""The path is drawn on a canvas of so many times the kernel's side."""


def gaussian_line(size: int, std: float, truncate: float = 4.0) -> Tensor:
    """1-D kernel float64[size]: a delta in the middle, filtered by a Gaussian that ends at `truncate` std.

    Where the filter is longer than the line, what falls beyond an end is mirrored back (edge repeated).
    """
    radius = int(truncate * std + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = (-0.5 * (offsets / std) ** 2).exp()
    weights = weights / weights.sum()
    places = (size // 2 + offsets.long()) % (2 * size)
    places = torch.where(places < size, places, 2 * size - 1 - places)
    return torch.zeros(size, dtype=torch.float64).scatter_add_(0, places, weights)


def motion_path(intensity: float, canvas: int, random: np.random.Generator) -> NDArray[np.complex128]:
    """Points of a random camera path, centred on the canvas, in pixels. Each move has its own angle to one axis."""
    diagonal = math.sqrt(2) * canvas
    longest = 0.75 * diagonal * (random.uniform() + random.uniform(0, intensity**2))
    steps: list[float] = []
    while sum(steps) < longest:
        steps.append(float(random.beta(1, 30)) * (1 - intensity + 0.1) * diagonal)
    most = random.uniform(0, intensity * math.pi)
    jitter = random.beta(2, 20)
    angles = [random.uniform(-most, most)]
    for _ in steps[1:]:
        size = random.triangular(0, intensity * most, most + 0.1)
        turned = random.uniform() < jitter
        sign = -math.copysign(1, angles[-1]) if turned else math.copysign(1, angles[-1])
        angles.append(sign * size)
    path = np.cumsum(np.asarray(steps) * np.exp(1j * np.asarray(angles)))
    turned_by = np.exp(1j * random.uniform(0, math.pi))
    found: NDArray[np.complex128] = (path - path.mean()) * turned_by + (canvas / 2) * (1 + 1j)
    return found


def motion_kernel(size: int, intensity: float, seed: int = 0) -> Tensor:
    """A kernel float64[size, size] of sum 1 along a random path; `intensity` in (0, 1]: 0 is nearly straight."""
    random = np.random.Generator(np.random.Philox(key=stream_key(seed, "motion_kernel")))
    canvas = FINE * size
    path = motion_path(intensity, canvas, random)
    drawn = np.zeros((canvas, canvas))
    for a, b in itertools.pairwise(path):
        dots = a + (b - a) * np.linspace(0, 1, 2 + int(4 * abs(b - a)))
        column, row = np.round(dots.real).astype(int), np.round(dots.imag).astype(int)
        inside = (column >= 0) & (column < canvas) & (row >= 0) & (row < canvas)
        drawn[row[inside], column[inside]] = 1.0
    kernel = torch.from_numpy(drawn.reshape(size, FINE, size, FINE).mean((1, 3)))
    if kernel.sum() == 0:  # a path that lies outside altogether: no motion
        kernel[size // 2, size // 2] = 1.0
    return kernel / kernel.sum()
