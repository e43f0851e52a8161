"""Samples as 8-bit images: rounding as the reference protocols do, PNG files, grids, and pictures of points."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.image_data import EIGHT_BITS
from generative.data.image_decode import pillow
from generative.errors import DataError

_GAP = 255
"""Brightness of the lines between the cells of a grid."""


def to_uint8(samples: Tensor) -> Tensor:
    """Pixels uint8 of samples in [-1, 1], any shape: floor(127.5 x + 128), clamped to 0 .. 255.

    Half a step rounds up, as in torchvision's `save_image` and in the evaluation of StyleGAN2-ADA. It undoes
    x / 127.5 - 1 exactly.

    Raises:
        DataError: values that are not finite.
    """
    if samples.dtype == torch.uint8:
        return samples
    if not samples.isfinite().all():
        wrong = int((~samples.isfinite()).sum())
        raise DataError(
            f"{wrong} of {samples.numel()} pixels of the samples are not finite",
            expected="samples in [-1, 1]",
            remedy="the model has diverged: take an earlier checkpoint, or train with a lower learning rate",
        )
    return (samples.float() * EIGHT_BITS + 128).floor_().clamp_(0, 255).to(torch.uint8)


def png(sample: Tensor) -> bytes:
    """A PNG file of one sample [C, H, W] (float in [-1, 1], or uint8), gray for C = 1 and RGB for C = 3.

    Raises:
        DataError: other channels, values that are not finite, or Pillow is not installed.
    """
    return encode_png(_rows_last(to_uint8(sample.detach().cpu())[None])[0])


def grid_png(samples: Tensor, columns: int, scale: int = 1, gap: int = 1) -> bytes:
    """A PNG file with samples [B, C, H, W] side by side, `columns` in a row, white lines between them.

    Args:
        samples: float in [-1, 1], or uint8; C = 1 or 3.
        columns: cells in a row; the last row may be shorter.
        scale: each pixel becomes scale x scale pixels, so that tiny images can be seen.
        gap: width of the lines in pixels.

    Raises:
        DataError: no samples, other channels, values that are not finite, or Pillow is not installed.
    """
    cells = _rows_last(to_uint8(samples.detach().cpu()))
    cells = cells.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = cells.shape
    rows, columns = math.ceil(count / columns), min(columns, count)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), _GAP, dtype=np.uint8)
    for number, cell in enumerate(cells):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        canvas[top : top + height, left : left + width] = cell
    return encode_png(canvas)


def points_png(points: Tensor, reach: float | None = None, side: int = 256) -> bytes:
    """A PNG file of points [B, 2] as dark dots: x to the right, y up; darker where there are more.

    Args:
        points: any float type.
        reach: half the side of the square around 0 that is shown (None: all finite points, with a margin).
        side: of the picture, in pixels.

    Raises:
        DataError: not points in the plane, or Pillow is not installed.
    """
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(
            f"points of shape {list(points.shape)}", expected="[B, 2]", remedy="give samples of data.name=points"
        )
    values = points.detach().cpu().double().numpy()
    values = values[np.isfinite(values).all(axis=1)]
    reach = reach or 1.1 * float(np.abs(values).max(initial=0)) or 1.0
    edges = np.linspace(-reach, reach, side + 1)
    counts = np.histogram2d(-values[:, 1], values[:, 0], bins=(edges, edges))[0]
    shade = np.where(counts > 0, 160 - 160 * counts / max(float(counts.max()), 1.0), 255)
    return encode_png(shade.astype(np.uint8)[..., None])


def _rows_last(pixels: Tensor) -> NDArray[np.uint8]:
    """uint8[B, H, W, C] of uint8[B, C, H, W]. Raises DataError for other shapes."""
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"images of shape {list(pixels.shape)}",
            expected="[B, C, H, W] with at least one image of 1 or 3 channels",
            remedy="give samples of image data (points have `points_png`)",
        )
    found: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).numpy()
    return found


def encode_png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG file of uint8[H, W, C], gray for C = 1 and RGB for C = 3.

    Args:
        pixels: brightness, or with a palette its rows (C = 1).
        palette: RGB colours uint8[up to 256, 3].

    Raises:
        DataError: Pillow is not installed.
    """
    content = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    image = pillow(by="writing PNG files", instead="no pictures").fromarray(np.ascontiguousarray(content))
    if palette is not None:
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
