"""Parts of NCSN++: time embedding, residual blocks (BigGAN's, with FIR resampling), self-attention, read-outs.

Shapes: B samples, C channels, F frequency bins, K frames, T features of the time embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.nets.fir import Direction, FirResample
from generative.nets.precision import WideBuffers, wide, without_autocast

FOURIER_SCALE = 16.0
HALF = math.sqrt(0.5)
"""Sums of two branches are scaled by it, so that the variance stays."""
NEAR_ZERO = 1e-10
"""Scale of the initial weights of layers that end a branch."""


def conv(inputs: int, outputs: int, size: int = 3, scale: float = 1.0) -> nn.Conv2d:
    """Convolution that keeps F and K; weights of variance `scale` over the mean fan (uniform), biases 0."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    _draw(layer, scale)
    return layer


def linear(inputs: int, outputs: int, scale: float = 1.0) -> nn.Linear:
    """Linear layer with initial weights as `conv`."""
    layer = nn.Linear(inputs, outputs)
    _draw(layer, scale)
    return layer


def _draw(layer: nn.Conv2d | nn.Linear, scale: float) -> None:
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def group_norm(channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    """Of groups of four channels, or 32 groups where that would be more.

    Raises:
        ConfigError: the channels cannot be split so.
    """
    groups = min(channels // 4, 32)
    if groups < 1 or channels % groups:
        raise ConfigError(
            f"{channels} channels, of one of the network's blocks, cannot be split into {max(groups, 1)} groups",
            "widths that are multiples of 4, of 32 from 128 channels on",
            "set method.network.width to a power of two, or change method.network.multipliers",
        )
    return nn.GroupNorm(groups, channels, eps=eps)


class TimeEmbedding(WideBuffers):
    """t -> linear(silu(linear([sin, cos](2 pi w ln t)))), with random frequencies w that stay as they are.

    Args:
        width: number of frequencies; T = 4 width.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width) * FOURIER_SCALE)
        self.hidden = linear(2 * width, 4 * width)
        self.out = linear(4 * width, 4 * width)

    def forward(self, t: Tensor) -> Tensor:
        """t[B], above 0 -> [B, T]."""
        with without_autocast(t):  # the phase has hundreds of turns
            phase = 2 * math.pi * wide(t).log()[:, None] * self.frequencies
            features = torch.cat((phase.sin(), phase.cos()), dim=1)
        embedding: Tensor = self.out(F.silu(self.hidden(features.to(self.hidden.weight.dtype))))
        return embedding

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs."""
        return self.hidden.weight.numel() + self.out.weight.numel()


class Attention(nn.Module):
    """(x + attention(norm(x))) / sqrt 2 over all F K positions, one head, scores scaled by C^-1/2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value = (linear(channels, channels, 0.1) for _ in range(3))
        self.out = linear(channels, channels, NEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F, K] -> the same."""
        rows = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # [B, 1, F K, C]
        mixed = F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows))
        change = self.out(mixed)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        total: Tensor = (x + change) * HALF
        return total

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K, in pairs."""
        return positions * (4 * self.out.weight.numel() + 2 * positions * self.out.in_features)


class Block(nn.Module):
    """Two convolutions beside a shortcut, resampled between norm and convolution; then attention, where wanted.

    h = conv1(resample(silu(norm1 x))) + time(silu(temb)), then (shortcut(resample x) + conv2(silu(norm2 h))) / sqrt 2.

    Args:
        inputs, outputs: channels, those of the skip connection among the inputs.
        time: T.
        resample: FIR, by 2; None: the size stays.
        attention: whether self-attention follows.
    """

    def __init__(
        self, inputs: int, outputs: int, time: int, resample: Direction | None = None, attention: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = conv(inputs, outputs)
        self.time = linear(time, outputs)
        self.norm2 = group_norm(outputs)
        self.conv2 = conv(outputs, outputs, scale=NEAR_ZERO)
        self.shortcut = conv(inputs, outputs, 1) if resample or inputs != outputs else None
        self.resample = FirResample(resample) if resample else None
        self.attention = Attention(outputs) if attention else None

    def forward(self, x: Tensor, time: Tensor, skip: Tensor | None = None) -> Tensor:
        """x[B, C, F, K], beside skip[B, C', F, K] if given, and time = silu(temb)[B, T] -> [B, outputs, F', K']."""
        if skip is not None:
            x = torch.cat((x, skip), dim=1)
        # What no backward pass will ask for is overwritten, since fresh memory costs as much as the sums themselves.
        reuse = not torch.is_grad_enabled()
        h = F.silu(self.norm1(x), inplace=reuse)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h, shift = self.conv1(h), self.time(time)[:, :, None, None]
        h = h.add_(shift) if reuse else h + shift
        h = self.conv2(F.silu(self.norm2(h), inplace=reuse))
        if self.shortcut is not None:
            x = self.shortcut(x)
        total: Tensor = (h.add_(x) if reuse else x + h).mul_(HALF)
        return total if self.attention is None else self.attention(total)

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K inputs, in pairs."""
        count: int = self.time.weight.numel()
        if self.resample is not None:
            count += 2 * self.resample.multiply_adds(self.conv1.in_channels, positions)
            positions = positions * 4 if self.resample.direction == "up" else positions // 4
        count += positions * sum(c.weight.numel() for c in (self.conv1, self.conv2, self.shortcut) if c is not None)
        return count + (self.attention.multiply_adds(positions) if self.attention is not None else 0)


class ReadOut(nn.Module):
    """conv(silu(norm(h))): what a level says of the output, in C' channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = group_norm(inputs)
        self.conv = conv(inputs, outputs, scale=NEAR_ZERO)

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, F, K] -> [B, C', F, K]."""
        out: Tensor = self.conv(F.silu(self.norm(h)))
        return out

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample with `positions` = F K, in pairs."""
        return positions * self.conv.weight.numel()


class WideConv2d(nn.Conv2d):
    """A convolution that is computed in fp32 or better, under autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            bias = None if self.bias is None else wide(self.bias)
            out: Tensor = self._conv_forward(wide(x), wide(self.weight), bias)
        return out
