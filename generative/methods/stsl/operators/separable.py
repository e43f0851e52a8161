"""Operators W_h x W_w^T: one matrix for rows and one for columns. Average and bicubic super-resolution, Gaussian blur.

Their pseudo-inverse is W_h^+ y (W_w^+)^T; singular values below a share of the greatest count as 0 where a blur has all
but lost them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import ConfigError, DataError
from generative.methods.stsl.operators.base import Operator, as_like, side_of
from generative.methods.stsl.operators.kernels import gaussian_line

BLUR_CUT = 1e-3
"""Singular values of a blur below this share of the greatest are taken as 0 by its pseudo-inverse."""


def separable(name: str, channels: int, rows: Tensor, columns: Tensor, cut: float | None = None) -> Operator:
    """y = R x C^T for R float64[h, H], C float64[w, W]; `cut`: relative threshold of singular values."""
    inverse_rows, inverse_columns = (torch.linalg.pinv(m, rtol=cut) for m in (rows, columns))

    def both(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
        return as_like(left, x) @ x @ as_like(right, x).T

    return Operator(
        name,
        (channels, rows.shape[1], columns.shape[1]),
        (channels, rows.shape[0], columns.shape[0]),
        apply=lambda x: both(rows, columns, x),
        adjoint=lambda y: both(rows.T, columns.T, y),
        pseudo_inverse=lambda y: both(inverse_rows, inverse_columns, y),
        greatest=float(rows.abs().sum(1).max() * columns.abs().sum(1).max()),
    )


def keys_cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def bicubic_matrix(size: int, factor: int, boundary: Literal["mirror", "truncate"] = "mirror") -> Tensor:
    """W float64[size / factor, size] of anti-aliased bicubic downsampling, rows of sum 1.

    mirror: beyond the edge lies the image mirrored, its edge pixel repeated (DPS, PSLD, DAPS, ReSample);
    truncate: nothing lies there (torch's interpolate, InverseBench). They differ at the border only.
    """
    count = size // factor
    if boundary == "truncate":
        # each unit vector as an image of equal columns; its width stays as it is
        lines = torch.eye(size, dtype=torch.float64)[:, None, :, None].expand(-1, -1, -1, size).contiguous()
        shrunk = F.interpolate(lines, (count, size), mode="bicubic", antialias=True, align_corners=False)
        return shrunk[:, 0, :, 0].T.contiguous()
    centres = (torch.arange(count, dtype=torch.float64) + 0.5) * factor - 0.5
    reach = 2 * factor + 1
    places = centres.floor().long()[:, None] + torch.arange(-reach, reach + 1)[None]
    weights = keys_cubic((centres[:, None] - places) / factor)
    weights = weights / weights.sum(1, keepdim=True)
    folded = places % (2 * size)
    folded = torch.where(folded < size, folded, 2 * size - 1 - folded)
    return torch.zeros(count, size, dtype=torch.float64).scatter_add_(1, folded, weights)


def superres(
    image: Sequence[int], factor: int = 4, kernel: Literal["average", "bicubic", "antialias"] = "average"
) -> Operator:
    """Downsampling by a whole factor.

    average: means of squares, A A^T = I / factor^2, whose pseudo-inverse repeats pixels; bicubic: with a mirrored
    boundary; antialias: bicubic as torch has it.
    """
    if factor < 1:
        raise ConfigError(f"superres: factor={factor}", "1 or more", "give another factor")
    channels, height, width = side_of(image, "superres", factor)
    name = f"superres:factor={factor},kernel={kernel}"
    if kernel == "average":
        return Operator(
            name,
            (channels, height, width),
            (channels, height // factor, width // factor),
            apply=lambda x: F.avg_pool2d(x, factor),
            adjoint=lambda y: _repeated(y, factor) / factor**2,
            pseudo_inverse=lambda y: _repeated(y, factor),
            greatest=1.0,
        )
    boundary: Literal["mirror", "truncate"] = "mirror" if kernel == "bicubic" else "truncate"
    return separable(name, channels, bicubic_matrix(height, factor, boundary), bicubic_matrix(width, factor, boundary))


def _repeated(y: Tensor, factor: int) -> Tensor:
    return y.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def reflected(size: int, pad: int) -> Tensor:
    """Places int64[size + 2 pad] that reflection padding takes its pixels from (the edge is not repeated).

    Raises:
        DataError: a padding of the whole side or more, which one reflection cannot fill.
    """
    if pad >= size:
        raise DataError(
            f"a kernel of {2 * pad + 1} pixels with images of {size}",
            f"images of more than {pad} pixels",
            "give a smaller kernel (size=...), or larger images",
        )
    places = torch.arange(-pad, size + pad).abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)


def line_matrix(line: Tensor, size: int) -> Tensor:
    """Correlation with a 1-D kernel after reflection padding as a matrix float64[size, size]."""
    pad = len(line) // 2
    places = reflected(size, pad)
    taken = torch.stack([places[start : start + len(line)] for start in range(size)])
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, taken, line.expand(size, -1))


def gaussian_blur(image: Sequence[int], size: int = 61, std: float = 3.0) -> Operator:
    """Correlation with a Gaussian that is cut at 4 standard deviations, each channel by itself, reflection padding.

    Raises:
        ConfigError: an even size, or std outside (0, size].
    """
    if size < 1 or size % 2 == 0 or not 0 < std <= size:
        raise ConfigError(f"gaussian_blur: size={size}, std={std:g}", "an odd size, std in (0, size]", "correct them")
    channels, height, width = side_of(image, "gaussian_blur")
    line = gaussian_line(size, std)
    name = f"gaussian_blur:size={size},std={std:g}"
    return separable(name, channels, line_matrix(line, height), line_matrix(line, width), BLUR_CUT)
