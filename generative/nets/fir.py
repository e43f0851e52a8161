"""Up- and downsampling by 2 with the filter [1, 3, 3, 1] in both directions, as StyleGAN2 and NCSN++ have it.

The published form inserts zeros (or drops samples) around a full convolution. A depthwise strided convolution gives the
same numbers from a quarter of the products, and needs no kernels of its own. Outside the border there are zeros, and
nothing is renormalised there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Direction = Literal["up", "down"]
TAPS = (1.0, 3.0, 3.0, 1.0)
PRODUCTS = len(TAPS) ** 2
"""Of one channel at one position of the smaller side."""


class FirResample(nn.Module):
    """x[B, C, F, K] -> [B, C, 2F, 2K] or [B, C, F/2, K/2]; F and K even for `down`.

    Args:
        direction: "up" or "down".
    """

    kernel: Tensor

    def __init__(self, direction: Direction) -> None:
        super().__init__()
        self.direction = direction
        taps = torch.tensor(TAPS, device="cpu")  # also where weights are left out: no file brings it
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        # Zeros between the samples thin a signal out to a quarter.
        self.register_buffer("kernel", kernel * (4 if direction == "up" else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = self.kernel.to(x.device, x.dtype).expand(channels, 1, -1, -1)
        if self.direction == "up":
            return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)
        return F.conv2d(x, weight, stride=2, padding=1, groups=channels)

    def multiply_adds(self, channels: int, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K inputs, in pairs."""
        return PRODUCTS * channels * (positions if self.direction == "up" else positions // 4)
