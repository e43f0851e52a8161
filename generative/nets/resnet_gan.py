"""Residual GAN networks with codes, as SNGAN and its successors have them; square images from 8 pixels up.

Up to 32 pixels all blocks are equally wide (256 channels in the generator, 128 in the discriminator). From 64 pixels on
the narrowest block has 64 channels, and each block nearer to the code twice as many, at most 1024 (of width 64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.batch_norm import BatchNorm
from generative.nets.codes import CodeNetwork, image_size
from generative.nets.recomputation import recomputed
from generative.nets.spectral_norm import Conv2d

WIDEST = 16
"""Channels of the widest block in those of the narrowest."""


def generator_channels(size: int, width: int | None) -> list[int]:
    """Channels of the 4 x 4 map and after each block; `width`: of the narrowest, None: as published."""
    blocks = int(math.log2(size // 4))
    if size <= 32:
        return [width or 256] * (blocks + 1)
    return [(width or 64) * min(2**i, WIDEST) for i in range(blocks, -1, -1)]


def discriminator_blocks(size: int, width: int | None) -> list[tuple[int, bool]]:
    """Channels of each block, and whether it halves the size."""
    if size <= 32:
        return [(width or 128, i < 2) for i in range(4)]
    return [((width or 64) * min(2**i, WIDEST), True) for i in range(int(math.log2(size // 4)) + 1)]


class UpBlock(nn.Module):
    """norm-ReLU-(twice the size)-conv-norm-ReLU-conv beside a 1 x 1 convolution, which is made before the enlargement:
    each pixel is only repeated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(inputs), BatchNorm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """[B, inputs, H, H] -> [B, outputs, 2 H, 2 H]."""
        y = F.relu(self.norm1(x, valid), inplace=True)
        y = self.conv1(_enlarged(y))
        y = self.conv2(F.relu(self.norm2(y, valid), inplace=True))
        out: Tensor = y + _enlarged(self.shortcut(x))
        return out

    def multiply_adds(self, side: int) -> int:
        """Of one sample with `side` pixels coming in."""
        large = self.conv1.weight.numel() + self.conv2.weight.numel()
        return large * (2 * side) ** 2 + self.shortcut.weight.numel() * side**2


class DownBlock(nn.Module):
    """ReLU-conv-ReLU-conv-(half the size) beside a 1 x 1 convolution, which is made after the mean: both are linear.

    Args:
        inputs, outputs: channels.
        down: halve the size; where not, and with as many channels, the shortcut is the input itself.
        first: no ReLU at the start (pixels come in).
        spectral: spectral normalisation.
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool, first: bool, spectral: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = Conv2d(inputs, outputs, 3, padding=1, spectral=spectral)
        self.conv2 = Conv2d(outputs, outputs, 3, padding=1, spectral=spectral)
        self.shortcut = Conv2d(inputs, outputs, 1, spectral=spectral) if down or inputs != outputs else None

    def forward(self, x: Tensor, iterate: bool = True) -> Tensor:
        """[B, inputs, H, H] -> [B, outputs, H/2, H/2], or as large as it was."""
        y = self.conv1(x if self.first else F.relu(x), iterate)
        y = self.conv2(F.relu(y, inplace=True), iterate)
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        out: Tensor = y + (x if self.shortcut is None else self.shortcut(x, iterate))
        return out

    def multiply_adds(self, side: int) -> int:
        """Of one sample with `side` pixels coming in."""
        large = (self.conv1.raw.numel() + self.conv2.raw.numel()) * side**2
        small = 0 if self.shortcut is None else self.shortcut.raw.numel() * (side // (1 + self.down)) ** 2
        return large + small


class ResnetGenerator(nn.Module):
    """Linear to 4 x 4, blocks that double the size, norm-ReLU-conv-tanh.

    Args:
        latent: Z.
        shape: [C, S, S] of a sample, S a power of two, at least 8.
        width: channels of the narrowest block; None: as published.

    Raises:
        ConfigError: another shape.
    """

    def __init__(self, latent: int, shape: Sequence[int], width: int | None = None) -> None:
        super().__init__()
        channels, size = image_size(shape, "resnet")
        widths = generator_channels(size, width)
        self.activation_checkpointing = False
        self.start = nn.Linear(latent, 4 * 4 * widths[0])
        self.blocks = nn.ModuleList(UpBlock(*pair) for pair in pairwise(widths))
        self.norm = BatchNorm(widths[-1])
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)
        _draw(self)

    def forward(self, z: Tensor, valid: Tensor | None = None) -> Tensor:
        """z[B, Z] -> images [B, C, S, S] in [-1, 1]; `valid`: see `BatchNorm`."""
        x = self.start(z).view(len(z), -1, 4, 4)
        for block in self.blocks:
            x = recomputed(self.activation_checkpointing, block, x, valid)
        return torch.tanh(self.last(F.relu(self.norm(x, valid), inplace=True)))

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions and products."""
        inner = sum(block.multiply_adds(4 << i) for i, block in enumerate(self.blocks))  # type: ignore[operator]
        side = 4 << len(self.blocks)
        return int(self.start.weight.numel() + inner + self.last.weight.numel() * side**2)


class ResnetDiscriminator(CodeNetwork):
    """Blocks that halve the size, ReLU, sum over the places, linear head.

    Args:
        shape: [C, S, S] of a sample, S a power of two, at least 8.
        code: m.
        width: channels of the narrowest block; None: as published.
        reparameterised, spectral, unused_head: see `CodeNetwork`.

    Raises:
        ConfigError: another shape.
    """

    def __init__(
        self,
        shape: Sequence[int],
        code: int,
        width: int | None = None,
        *,
        reparameterised: bool = True,
        spectral: bool = True,
        unused_head: bool = False,
    ) -> None:
        channels, size = image_size(shape, "resnet")
        plan = discriminator_blocks(size, width)
        heads = {"reparameterised": reparameterised, "unused_head": unused_head}
        super().__init__(plan[-1][0], code, spectral=spectral, bias=False, **heads)
        self.size = size
        self.blocks = nn.ModuleList()
        for outputs, down in plan:
            self.blocks.append(DownBlock(channels, outputs, down=down, first=not self.blocks, spectral=spectral))
            channels = outputs
        _draw(self)

    def features(self, x: Tensor, iterate: bool) -> Tensor:
        """[B, C, S, S] -> [B, channels of the last block]."""
        for block in self.blocks:
            x = recomputed(self.activation_checkpointing, block, x, iterate)
        return F.relu(x).sum((2, 3))

    def multiply_adds(self) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions and head."""
        total, side = self.head_multiply_adds(), self.size
        for block in self.blocks:
            assert isinstance(block, DownBlock)
            total += block.multiply_adds(side)
            side //= 1 + block.down
        return total


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


@torch.no_grad()
def _draw(network: nn.Module) -> None:
    """Glorot's uniform weights, those before a ReLU's block output times sqrt(2); biases 0 (SNGAN)."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, math.sqrt(2) if ".conv" in name else 1.0)
