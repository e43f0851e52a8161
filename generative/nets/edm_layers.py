"""Layers of EDM's U-Nets: initial weights, convolutions that resample, embeddings of the noise level.

Shapes: B samples, C channels, H = W side, N features of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.fir import Direction, filter_kernel, resample
from generative.nets.precision import WideBuffers, wide, without_autocast

FOURIER_SCALE = 16.0
LONGEST = 10_000.0
"""Ratio of the highest to the lowest frequency of positional embeddings."""


@dataclass(frozen=True)
class Init:
    """How initial weights are drawn.

    Args:
        mode: xavier: U(-b, b) with b = weight sqrt(6 / (fan_in + fan_out)); kaiming: b = weight sqrt(3 / fan_in);
            normal: N(0, weight^2 / fan_in).
        weight: scale of the weights.
        bias: the same of biases; 0: they begin at 0.
    """

    mode: Literal["xavier", "kaiming", "normal"]
    weight: float = 1.0
    bias: float = 0.0

    @torch.no_grad()
    def __call__(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Draw a layer's weights."""
        fan_in = layer.weight[0].numel()
        fan_out = layer.weight.numel() // layer.weight.shape[1]
        if self.mode == "normal":
            layer.weight.normal_(0.0, self.weight / math.sqrt(fan_in))
        else:
            bound = math.sqrt(6 / (fan_in + fan_out) if self.mode == "xavier" else 3 / fan_in)
            layer.weight.uniform_(-bound * self.weight, bound * self.weight)
            if layer.bias is not None:
                layer.bias.uniform_(-bound * self.bias, bound * self.bias)


def linear(inputs: int, outputs: int, init: Init, bias: bool = True) -> nn.Linear:
    """A linear layer with initial weights by `init`."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    init(layer)
    return layer


def conv(inputs: int, outputs: int, size: int, init: Init) -> nn.Conv2d:
    """A convolution that keeps H and W, with initial weights by `init`."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    init(layer)
    return layer


class Resample(nn.Module):
    """x[B, C, H, W] -> [B, C, 2H, 2W] or [B, C, H/2, W/2], nothing else.

    Args:
        direction: "up" or "down".
        taps: of the filter, an even number.
    """

    resample_filter: Tensor

    def __init__(self, direction: Direction, taps: Sequence[float]) -> None:
        super().__init__()
        self.direction, self.taps = direction, tuple(taps)
        self.register_buffer("resample_filter", filter_kernel(taps)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        return _resampled(x, self.resample_filter, self.direction, self.taps)

    def multiply_adds(self, channels: int, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` results, in pairs; of a box none."""
        return _filter_products(self.direction, self.taps, channels, positions)


class ResampledConv(nn.Conv2d):
    """A convolution of what is resampled first; `fused`: as one operation, where the border is filtered differently.

    Args:
        inputs, outputs: channels.
        size: of the convolution's kernel, odd.
        direction: "up" or "down".
        taps: of the filter, an even number.
        init: of the weights.
        fused: up: filtered without cutting, then convolved and cut; down: convolved with more zeros around, then
            filtered. Both differ from the plain form at the border only where zeros come in.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        direction: Direction,
        taps: Sequence[float],
        init: Init,
        fused: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        self.direction, self.taps, self.fused = direction, tuple(taps), fused
        self.register_buffer("resample_filter", filter_kernel(taps)[None, None])
        init(self)

    def forward(self, x: Tensor) -> Tensor:
        if not self.fused:
            return super().forward(_resampled(x, self.resample_filter, self.direction, self.taps))
        around, cut = self.kernel_size[0] // 2, (len(self.taps) - 1) // 2
        kernel = self.resample_filter[0, 0]
        if self.direction == "up":
            x = resample(x, 4 * kernel, "up", max(cut - around, 0))
            return F.conv2d(x, self.weight, self.bias, padding=max(around - cut, 0))
        # The filter's sum is 1, so that it leaves the bias as it is.
        return resample(F.conv2d(x, self.weight, self.bias, padding=around + cut), kernel, "down", 0)

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` results, in pairs."""
        if not self.fused:
            filtering = _filter_products(self.direction, self.taps, self.in_channels, positions)
            return positions * self.weight.numel() + filtering
        side, cut, taps = math.isqrt(positions), (len(self.taps) - 1) // 2, len(self.taps)
        if self.direction == "up":
            return positions * self.weight.numel() + taps**2 * self.in_channels * positions // 4
        return (2 * side + 2 * cut) ** 2 * self.weight.numel() + taps**2 * self.out_channels * positions


def _resampled(x: Tensor, kernel: Tensor, direction: Direction, taps: tuple[float, ...]) -> Tensor:
    if len(taps) == 2 and taps[0] == taps[1]:  # a box: no products are needed
        return F.avg_pool2d(x, 2) if direction == "down" else F.interpolate(x, scale_factor=2.0, mode="nearest")
    kernel = kernel[0, 0]
    return resample(x, 4 * kernel if direction == "up" else kernel, direction)


def _filter_products(direction: Direction, taps: tuple[float, ...], channels: int, positions: int) -> int:
    if len(taps) == 2 and taps[0] == taps[1]:
        return 0
    return len(taps) ** 2 * channels * (positions // 4 if direction == "up" else positions)


class PositionalEmbedding(nn.Module):
    """c[B] -> [cos(c f), sin(c f)], [B, N], with N / 2 frequencies f from 1 down to about 1 / 10,000.

    Args:
        features: N, even.
        endpoint: whether the last frequency is exactly 1 / 10,000.
    """

    def __init__(self, features: int, endpoint: bool) -> None:
        super().__init__()
        self.features, self.endpoint = features, endpoint

    def forward(self, c: Tensor) -> Tensor:
        c, half = wide(c), self.features // 2
        # With a single frequency the endpoint would be a division by 0.
        places = torch.arange(half, dtype=c.dtype, device=c.device) / max(half - self.endpoint, 1)
        phase = c[:, None] * LONGEST**-places
        return torch.cat((phase.cos(), phase.sin()), dim=1)


class FourierEmbedding(WideBuffers):
    """c[B] -> [cos(2 pi c f), sin(2 pi c f)], [B, N], with N / 2 random frequencies f that stay as they are.

    Args:
        features: N, even.
    """

    freqs: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(features // 2) * FOURIER_SCALE)

    def forward(self, c: Tensor) -> Tensor:
        with without_autocast(c):
            phase = 2 * math.pi * wide(c)[:, None] * self.freqs
            return torch.cat((phase.cos(), phase.sin()), dim=1)
