"""Inpainting: y = m x with a mask of ones (kept) and zeros, shared by the channels. A = A^T = A^+.

A measurement is an image with its missing pixels 0 (mid-grey).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from generative.errors import ConfigError, DataError
from generative.methods.stsl.operators.base import Operator, as_like, side_of
from generative.randomness import stream_key


def masked(image: Sequence[int], mask: Tensor, name: str) -> Operator:
    """Keep the pixels where `mask` [H, W] is 1.

    Raises:
        DataError: no pixel is kept.
    """
    shape = side_of(image, name)
    if not bool(mask.any()):
        raise DataError(f"{name} keeps no pixel of {shape[1]} x {shape[2]}", "one or more", "remove fewer")

    def keep(x: Tensor) -> Tensor:
        return x * as_like(mask, x)

    return Operator(name, shape, shape, keep, keep, keep, greatest=1.0)


def inpaint(image: Sequence[int], missing: float = 0.7, seed: int = 0) -> Operator:
    """int(H W missing) pixels are missing, drawn without replacement by `seed`.

    Raises:
        ConfigError: a share outside [0, 1).
    """
    if not 0 <= missing < 1:
        raise ConfigError(f"inpaint: missing={missing:g}", "a share in [0, 1)", "give another share, such as 0.7")
    _, height, width = side_of(image, "inpaint")
    order = _random(seed, "inpaint").permutation(height * width)
    mask = torch.ones(height * width, dtype=torch.float64)
    mask[torch.from_numpy(order[: int(height * width * missing)])] = 0
    return masked(image, mask.reshape(height, width), f"inpaint:missing={missing:g},seed={seed}")


def box(image: Sequence[int], size: int = 128, margin: int = 16, seed: int = 0) -> Operator:
    """A square of `size` pixels is missing, its corner uniform in [margin, side - margin - size).

    Raises:
        DataError: a square that does not fit into the images.
    """
    _, height, width = side_of(image, "box")
    room = min(height, width) - 2 * margin - size
    if size < 1 or margin < 0 or room <= 0:
        raise DataError(
            f"box: a square of {size} pixels with margin {margin} in images of {height} x {width}",
            "size + 2 margin below the side",
            "give a smaller size or margin, such as box:size=16,margin=2",
        )
    random = _random(seed, "box")
    top, left = (int(random.integers(margin, side - margin - size)) for side in (height, width))
    mask = torch.ones(height, width, dtype=torch.float64)
    mask[top : top + size, left : left + size] = 0
    return masked(image, mask, f"box:size={size},margin={margin},seed={seed}")


def free_form(image: Sequence[int], low: float = 0.1, high: float = 0.2, seed: int = 0) -> Operator:
    """Random strokes of a brush are missing until they cover a share drawn from U(low, high). The generator is ours.

    Raises:
        ConfigError: not 0 < low <= high < 1.
    """
    if not 0 < low <= high < 1:
        raise ConfigError(f"free_form: low={low:g}, high={high:g}", "0 < low <= high < 1", "correct them")
    _, height, width = side_of(image, "free_form")
    random = _random(seed, "free_form")
    wanted = random.uniform(low, high) * height * width
    rows, columns = np.mgrid[:height, :width]
    hole = np.zeros((height, width), dtype=bool)
    side = min(height, width)
    row, column, angle = (random.uniform(0, n) for n in (height, width, 2 * math.pi))
    brush = max(1.0, random.uniform(0.02, 0.05) * side)
    while hole.sum() < wanted:
        hole |= (rows - row) ** 2 + (columns - column) ** 2 < brush**2
        angle += random.normal(0, 0.4)
        row, column = row + brush * math.sin(angle), column + brush * math.cos(angle)
        outside = not (0 <= row < height and 0 <= column < width)
        if outside or random.uniform() < brush / side:
            row, column, angle = (random.uniform(0, n) for n in (height, width, 2 * math.pi))
    return masked(image, torch.from_numpy(~hole).double(), f"free_form:low={low:g},high={high:g},seed={seed}")


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=stream_key(seed, name)))
