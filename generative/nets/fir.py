"""Up- and downsampling by 2 with a separable filter in both directions, as StyleGAN2, NCSN++ and EDM have it.

The published form inserts zeros (or drops samples) around a full convolution. A depthwise strided convolution gives the
same numbers from a quarter of the products, and needs no kernels of its own. Outside the border there are zeros, and
nothing is renormalised there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Direction = Literal["up", "down"]
TAPS = (1.0, 3.0, 3.0, 1.0)
PRODUCTS = len(TAPS) ** 2
"""Of one channel at one position of the smaller side."""


def filter_kernel(taps: Sequence[float]) -> Tensor:
    """The filter of these taps in both directions, float32[n, n], of sum 1; on the CPU, whatever the default device."""
    row = torch.tensor(taps, dtype=torch.float32, device="cpu")
    return torch.outer(row, row) / row.sum() ** 2


def resample(x: Tensor, kernel: Tensor, direction: Direction, padding: int | None = None) -> Tensor:
    """x[B, C, H, W] -> [B, C, 2H, 2W] or [B, C, H/2, W/2] by the filter `kernel` of any type and device.

    Args:
        x: H and W even for "down".
        kernel: [n, n], n even; for "up" four times the filter, since zeros between samples thin a signal out.
        direction: "up" or "down".
        padding: zeros beside x ("down"), or places left out beside the result ("up"); None: (n - 1) // 2, which keeps
            to the sizes above.
    """
    channels = x.shape[1]
    padding = (kernel.shape[-1] - 1) // 2 if padding is None else padding
    weight = kernel.to(x.device, x.dtype).expand(channels, 1, -1, -1)
    if direction == "up":
        return F.conv_transpose2d(x, weight, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, weight, stride=2, padding=padding, groups=channels)


class FirResample(nn.Module):
    """x[B, C, F, K] -> [B, C, 2F, 2K] or [B, C, F/2, K/2] by [1, 3, 3, 1]; F and K even for `down`.

    Args:
        direction: "up" or "down".
    """

    kernel: Tensor

    def __init__(self, direction: Direction) -> None:
        super().__init__()
        self.direction = direction
        # On the CPU also where weights are left out: no file brings it.
        self.register_buffer("kernel", filter_kernel(TAPS) * (4 if direction == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return resample(x, self.kernel, self.direction)

    def multiply_adds(self, channels: int, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K inputs, in pairs."""
        return PRODUCTS * channels * (positions if self.direction == "up" else positions // 4)
