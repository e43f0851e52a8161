"""Operators by the orthonormal cosine transform: compressed sensing, and rounding as JPEG does it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.stsl.operators.base import Operator, as_like, side_of
from generative.randomness import Streams

BLOCK = 8
LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float64,
)
"""The standard's quantisation table of luminance, at quality 50."""


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II, float64[size, size]: row k is frequency k."""
    k, n = torch.arange(size, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)[None]
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * (2 * n + 1) * k / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix


def compressed_sensing(image: Sequence[int], keep: float = 0.25, seed: int = 0) -> Operator:
    """y = S H D x: random signs D, 2-D DCT H, a random share `keep` of its coefficients S; A A^T = I, so A^+ = A^T.

    Signs and places are drawn by `seed`, the same for all channels; y is [C, m].

    Raises:
        ConfigError: a share outside (0, 1], or too small for one coefficient.
    """
    channels, height, width = side_of(image, "compressed_sensing")
    count = int(keep * height * width)
    if not 0 < keep <= 1 or count < 1:
        raise ConfigError(
            f"compressed_sensing: keep={keep:g}", "a share in (0, 1] of one coefficient or more", "give another share"
        )
    streams = Streams(seed).within("compressed_sensing")
    signs = 1.0 - 2.0 * streams.integers("signs", [0], 2, (height, width))[0].double()
    places = streams.uniform("places", [0], (height * width,), torch.float64)[0].argsort()[:count].sort().values
    rows, columns = dct_matrix(height), dct_matrix(width)

    def apply(x: Tensor) -> Tensor:
        turned = as_like(rows, x) @ (x * as_like(signs, x)) @ as_like(columns, x).T
        return turned.flatten(-2)[..., places.to(x.device)]

    def adjoint(y: Tensor) -> Tensor:
        full = y.new_zeros(*y.shape[:-1], height * width).index_copy(-1, places.to(y.device), y)
        image = full.reshape(*y.shape[:-1], height, width)
        back: Tensor = as_like(rows, y).T @ image @ as_like(columns, y)
        return back * as_like(signs, y)

    name = f"compressed_sensing:keep={keep:g},seed={seed}"
    return Operator(name, (channels, height, width), (channels, count), apply, adjoint, adjoint)


def quantisation(quality: int) -> Tensor:
    """Steps of the coefficients, float64[8, 8], at quality 1 .. 100."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return ((LUMINANCE * scale + 50) / 100).floor().clamp(1, 255)


def jpeg(image: Sequence[int], quality: int = 10) -> Operator:
    """JPEG's rounding: blocks of 8 x 8, DCT of 255 (x + 1) / 2 - 128, in steps of the luminance table, and back.

    Each channel by itself, with no change of colours. Rounding has no derivative: gradients go straight through it.

    Raises:
        ConfigError: a quality outside 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise ConfigError(f"jpeg: quality={quality}", "1 to 100", "give another quality")
    shape = side_of(image, "jpeg", BLOCK)
    table, matrix = quantisation(quality), dct_matrix(BLOCK)
    _, height, width = shape

    def apply(x: Tensor) -> Tensor:
        q, m = as_like(table, x), as_like(matrix, x)
        grey = 255 * (x + 1) / 2 - 128
        blocks = grey.reshape(*x.shape[:-2], height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        coefficients = m @ blocks.transpose(-3, -2) @ m.T
        steps = coefficients / q
        rounded = (steps + (steps.round() - steps).detach()) * q
        back: Tensor = (m.T @ rounded @ m).transpose(-3, -2).reshape(x.shape)
        return (back + 128) * 2 / 255 - 1

    return Operator(f"jpeg:quality={quality}", shape, shape, apply, rough=lambda y: y)
