"""Augmentation that does not leak: the network is told what was done to an image (Karras et al. 2022, appendix F.2).

Shapes: B images [C, H, W]. Coordinates are (x, y) in pixels from the middle of an image, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.randomness import Streams

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Low-pass filter of Daubechies' symlets with 6 vanishing moments. Being orthonormal, it doubles the samples and halves
them again without a loss."""
EDGE = len(SYM6) // 4
"""Coarse samples beyond the border that the filter's way back needs."""
SCALE = 0.2
"""Standard deviation of log2 of scales."""
SHIFT = 0.125
"""Standard deviation of shifts over the side."""


@dataclass(frozen=True)
class Transforms:
    """What is done to each image, float64[B] each; where a transform is not applied, its numbers are 0.

    Args:
        mirror: 1: left and right change places.
        upside_down: 1: top and bottom do.
        scale: w; the image grows by 2^(0.2 w).
        angle: by which it is turned.
        stretch: w; it grows by 2^(0.2 w) along an axis, and shrinks by as much across it.
        direction: of that axis.
        shift_x, shift_y: in eighths of its width and height.
    """

    mirror: Tensor
    upside_down: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    direction: Tensor
    shift_x: Tensor
    shift_y: Tensor

    def labels(self) -> Tensor:
        """What the network is told, float32[B, 9]; zeros for an image as it was."""
        turned = (self.angle.cos() - 1, self.angle.sin())
        stretched = (self.stretch * self.direction.cos(), self.stretch * self.direction.sin())
        told = (self.mirror, self.upside_down, self.scale, *turned, *stretched, self.shift_x, self.shift_y)
        return torch.stack(told, dim=1).float()

    def to(self, device: torch.device) -> Transforms:
        """The same on a device."""
        return Transforms(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_transforms(streams: Streams, ids: Tensor, probability: float) -> Transforms:
    """Transforms of the samples `ids` int64[B], each applied with the probability, mirrors with one half."""
    u = streams.uniform("transforms", ids, (10,), torch.float64).unbind(1)
    n = streams.normal("transforms_normal", ids, (4,), torch.float64).unbind(1)

    def sometimes(applied: Tensor, value: Tensor, chance: float = probability) -> Tensor:
        return torch.where(applied < chance, value, 0.0)

    def turn(uniform: Tensor) -> Tensor:
        return (2 * uniform - 1) * math.pi

    return Transforms(
        mirror=(u[0] < 0.5).double(),
        upside_down=sometimes(u[1], (u[2] < 0.5).double()),
        scale=sometimes(u[3], n[0]),
        angle=sometimes(u[4], turn(u[5])),
        stretch=sometimes(u[6], n[1]),
        direction=sometimes(u[7], turn(u[8]), 0.5),
        shift_x=sometimes(u[9], n[2]),
        shift_y=sometimes(u[9], n[3]),
    )


def augmented(images: Tensor, transforms: Transforms) -> Tensor:
    """The images [B, C, H, W] after their transforms, in the same size; beyond the border they are mirrored.

    One affine resampling: twice the pixels by the wavelet filter, linear interpolation between them, and half the
    pixels by the filter again. Flips move pixels as they are.
    """
    images = torch.where(_column(transforms.mirror) == 1, images.flip(3), images)
    images = torch.where(_column(transforms.upside_down) == 1, images.flip(2), images)
    H, W = images.shape[2:]
    margin_y, margin_x = H - 1, W - 1  # as far as mirroring goes, so that results do not depend on the batch
    padded = F.pad(images, (margin_x, margin_x, margin_y, margin_y), mode="reflect")
    fine = _filtered(padded, "up")
    places = _sources(_backwards(transforms, H, W), H, W, images.device)
    # From pixels about the middle of the image to places in `fine`: -1 and 1 are the centres of its outermost pixels.
    middle = torch.tensor([(W - 1) / 2 + margin_x, (H - 1) / 2 + margin_y], dtype=torch.float64, device=images.device)
    last = torch.tensor([fine.shape[3] - 1, fine.shape[2] - 1], dtype=torch.float64, device=images.device)
    grid = (4 * (places + middle) / last - 1).to(images.dtype)
    found = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return _filtered(found, "down")[:, :, EDGE:-EDGE, EDGE:-EDGE]


def _backwards(transforms: Transforms, H: int, W: int) -> Tensor:
    """Where a pixel of the result comes from: float64[B, 2, 3], matrix and shift.

    u = S^-1 R(angle) R(-r) diag(1/s, s) R(r) (o - shift), the inverse of what is done to the image.
    """
    grown, stretched = (2 ** (SCALE * w) for w in (transforms.scale, transforms.stretch))
    zeros = torch.zeros_like(grown)
    across = torch.stack((1 / stretched, zeros, zeros, stretched), dim=1).view(-1, 2, 2)
    turned, there, back = (_rotation(a) for a in (transforms.angle, -transforms.direction, transforms.direction))
    matrix = turned @ there @ across @ back / grown[:, None, None]
    shift = torch.stack((transforms.shift_x * SHIFT * W, transforms.shift_y * SHIFT * H), dim=1)[:, :, None]
    return torch.cat((matrix, -matrix @ shift), dim=2)


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack((c, -s, s, c), dim=1).view(-1, 2, 2)


def _sources(backwards: Tensor, H: int, W: int, device: torch.device) -> Tensor:
    """Where each fine pixel of the result comes from, float64[B, 2 (H + 2 EDGE), 2 (W + 2 EDGE), 2] as (x, y)."""
    rows, columns = (
        torch.arange(2 * (n + 2 * EDGE), dtype=torch.float64, device=device) / 2 - EDGE - (n - 1) / 2 for n in (H, W)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    places = torch.stack((x, y, torch.ones_like(x)), dim=-1)
    return torch.einsum("bij,hwj->bhwi", backwards.to(device), places)


def _filtered(x: Tensor, direction: str) -> Tensor:
    """Twice (sum of the filter 2 a side) or half as many pixels each way; fine pixel 2 i lies on coarse pixel i."""
    taps, channels = torch.tensor(SYM6, dtype=x.dtype, device=x.device), x.shape[1]
    before = len(SYM6) // 2 - 1
    for axis in (2, 3):
        shape = [channels, 1, 1, 1]
        shape[axis] = len(SYM6)
        # Over both axes and both ways the gain is 1: sqrt 2 an axis here, each way, on samples of which half are zeros.
        weight = taps.view([1, 1, *shape[2:]]).expand(shape)
        stride, padding = [1, 1], [0, 0]
        stride[axis - 2], padding[axis - 2] = 2, before
        if direction == "up":
            x = F.conv_transpose2d(x, weight, stride=stride, padding=padding, groups=channels)
        else:
            x = F.conv2d(x, weight, stride=stride, padding=padding, groups=channels)
    return x


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
