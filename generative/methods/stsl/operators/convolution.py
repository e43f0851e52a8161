"""Blur by a two-dimensional kernel: correlation after reflection padding, its exact adjoint, motion blur.

Padding is A_p x = x[places], so that its adjoint adds each padded pixel to the one that it was copied from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.methods.stsl.operators.base import Operator, as_like, side_of, with_iterative_inverse
from generative.methods.stsl.operators.kernels import motion_kernel
from generative.methods.stsl.operators.separable import reflected


def kernel_blur(image: Sequence[int], kernel: Tensor, name: str) -> Operator:
    """Correlation of each channel with `kernel` float[k, k], k odd, after reflection padding by k // 2."""
    channels, height, width = side_of(image, name)
    pad = kernel.shape[0] // 2
    rows, columns = reflected(height, pad), reflected(width, pad)

    def weight(x: Tensor) -> Tensor:
        return as_like(kernel, x)[None, None]

    def single(x: Tensor) -> Tensor:
        return x.reshape(-1, 1, *x.shape[-2:])

    def apply(x: Tensor) -> Tensor:
        padded = x[..., rows.to(x.device), :][..., columns.to(x.device)]
        return F.conv2d(single(padded), weight(x)).reshape(x.shape)

    def adjoint(y: Tensor) -> Tensor:
        padded = F.conv_transpose2d(single(y), weight(y)).reshape(*y.shape[:-2], height + 2 * pad, width + 2 * pad)
        folded = y.new_zeros(*y.shape[:-2], height, width + 2 * pad).index_add(-2, rows.to(y.device), padded)
        return torch.zeros_like(y).index_add(-1, columns.to(y.device), folded)

    shape = (channels, height, width)
    return with_iterative_inverse(Operator(name, shape, shape, apply, adjoint, greatest=float(kernel.abs().sum())))


def motion_blur(image: Sequence[int], size: int = 61, intensity: float = 0.5, seed: int = 0) -> Operator:
    """Blur along the random path of a camera; `seed` draws the path.

    Raises:
        ConfigError: an even size, or an intensity outside (0, 1].
    """
    if size < 1 or size % 2 == 0 or not 0 < intensity <= 1:
        raise ConfigError(
            f"motion_blur: size={size}, intensity={intensity:g}", "an odd size, intensity in (0, 1]", "correct them"
        )
    name = f"motion_blur:size={size},intensity={intensity:g},seed={seed}"
    return kernel_blur(image, motion_kernel(size, intensity, seed), name)
