"""Complex layers in real arithmetic: the real parts of C channels, then their imaginary parts, are 2C real channels.

A complex weight W = A + iB is then the real one [[A, -B], [B, A]], so that one real convolution does the work of four.

Shapes: B samples, C complex channels, F frequency bins, K frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def stacked(spectra: Tensor) -> Tensor:
    """complex[B, C, ...] -> real[B, 2C, ...]."""
    return torch.cat((spectra.real, spectra.imag), dim=1)


def unstacked(x: Tensor) -> Tensor:
    """real[B, 2C, ...] -> complex[B, C, ...]."""
    return torch.complex(*x.chunk(2, dim=1))


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Channels of two: real[B, 2C, ...], real[B, 2C', ...] -> real[B, 2C + 2C', ...], real parts first."""
    parts = zip(first.chunk(2, dim=1), second.chunk(2, dim=1), strict=True)
    return torch.cat([part for pair in parts for part in pair], dim=1)


class _Complex(nn.Module):
    """A complex weight and bias, drawn as torch draws those of a real layer of this shape."""

    def __init__(self, shape: Sequence[int], outputs: int, bias: bool) -> None:
        super().__init__()
        self.real, self.imaginary = (nn.Parameter(torch.empty(*shape)) for _ in range(2))
        self.bias = nn.Parameter(torch.empty(2 * outputs)) if bias else None
        for weight in (self.real, self.imaginary):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            nn.init.uniform_(self.bias, -bound, bound)

    def multiply_adds(self, positions: int = 1) -> int:
        """Multiplications and additions of one sample, in pairs, if the weight is applied at so many positions."""
        return 4 * self.real.numel() * positions


class ComplexLinear(_Complex):
    """[B, 2N] -> [B, 2M]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((outputs, inputs), outputs, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _block(self.real, self.imaginary), self.bias)


class ComplexConv(_Complex):
    """[B, 2C, F, K] -> [B, 2C', F', K'], padded by half the kernel on each side.

    Args:
        inputs, outputs: complex channels.
        kernel: of both axes.
        stride, dilation: of each axis.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int], dilation: tuple[int, int]
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), outputs, bias=False)
        self.kernel, self.stride, self.dilation, self.padding = kernel, stride, dilation, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        weight = _block(self.real, self.imaginary)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)

    def out_size(self, size: Sequence[int]) -> tuple[int, int]:
        """(F', K') of (F, K)."""
        bins, frames = (
            (length + 2 * self.padding - dilation * (self.kernel - 1) - 1) // stride + 1
            for length, stride, dilation in zip(size, self.stride, self.dilation, strict=True)
        )
        return bins, frames


class ComplexTransposedConv(_Complex):
    """[B, 2C, F, K] -> [B, 2C', F', K'] of a size that is given; arguments as `ComplexConv`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: tuple[int, int], dilation: tuple[int, int], bias: bool
    ) -> None:
        super().__init__((inputs, outputs, kernel, kernel), outputs, bias=bias)
        self.kernel, self.stride, self.dilation, self.padding = kernel, stride, dilation, kernel // 2

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """`size`: (F', K')."""
        least = [
            (length - 1) * stride - 2 * self.padding + dilation * (self.kernel - 1) + 1
            for length, stride, dilation in zip(x.shape[2:], self.stride, self.dilation, strict=True)
        ]
        more = [wanted - found for wanted, found in zip(size, least, strict=True)]
        weight = _block(self.real, -self.imaginary)  # inputs are its rows
        return F.conv_transpose2d(
            x, weight, self.bias, self.stride, self.padding, output_padding=more, dilation=self.dilation
        )


def _block(real: Tensor, imaginary: Tensor) -> Tensor:
    """[[A, -B], [B, A]]."""
    return torch.cat((torch.cat((real, -imaginary), 1), torch.cat((imaginary, real), 1)), 0)
