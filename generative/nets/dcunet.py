"""Deep complex U-Net with dilated convolutions: the network of the first SGMSE paper (Welker et al. 2022, section 3).

Six complex convolutions down, six transposed ones up on skip connections, with an embedding of t added in each.

Shapes: B samples, F frequency bins (8 n + 1, at least 97), K frames, T complex features of time, C complex channels.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.nets.batch_norm import BatchNorm
from generative.nets.complex_layers import ComplexConv, ComplexLinear, ComplexTransposedConv, joined, stacked, unstacked
from generative.nets.dcunet_config import DcunetConfig
from generative.nets.precision import WideBuffers, wide, without_autocast
from generative.nets.recomputation import recomputed

KERNEL = 4
SHAPES = (
    (1, (1, 1), (1, 1)),
    (1, (1, 1), (1, 1)),
    (1, (1, 1), (1, 1)),
    (2, (2, 1), (2, 1)),
    (4, (2, 2), (4, 1)),
    (8, (2, 2), (8, 1)),
)
"""Of each layer down: channels as a multiple of the width, stride, dilation."""
FRAMES = 4
"""Frames are padded to one more than a multiple of it."""
FOURIER_SCALE = 16.0
SLOPE = 0.01


class ComplexTime(WideBuffers):
    """t -> silu(linear([sin, cos](2 pi w t))), ..., with random frequencies w that stay as they are."""

    frequencies: Tensor

    def __init__(self, features: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(features // 2) * FOURIER_SCALE)
        self.layers = nn.ModuleList(ComplexLinear(features, features) for _ in range(layers))

    def forward(self, t: Tensor) -> Tensor:
        """t[B] -> [B, 2T]."""
        with without_autocast(t):
            phase = 2 * math.pi * wide(t)[:, None] * self.frequencies
            features = torch.cat((phase.sin(), phase.cos()), dim=1)
        x = F.pad(features, (0, features.shape[1]))  # imaginary parts are 0
        for layer in self.layers:
            x = F.silu(layer(x.to(cast("ComplexLinear", layer).real.dtype)))
        return x


class Stage(nn.Module):
    """leaky_relu(norm(conv(x) + silu(linear(time)))), with the activation on real and imaginary parts.

    Args:
        conv: with or without transposition.
        outputs: C.
        time: T.
    """

    def __init__(self, conv: ComplexConv | ComplexTransposedConv, outputs: int, time: int) -> None:
        super().__init__()
        self.conv = conv
        self.time = ComplexLinear(time, outputs)
        self.norm = BatchNorm(2 * outputs)

    def forward(self, x: Tensor, time: Tensor, valid: Tensor | None, *size: tuple[int, int]) -> Tensor:
        """[B, 2C', F', K'] -> [B, 2C, F, K]; `size` = (F, K), where the convolution is transposed."""
        h = self.conv(x, *size) + F.silu(self.time(time))[:, :, None, None]
        return F.leaky_relu(self.norm(h, valid), SLOPE)

    def multiply_adds(self, positions: int) -> int:
        """Multiplications and additions of one sample, in pairs; `positions`: F K of the smaller side."""
        return self.conv.multiply_adds(positions) + self.time.multiply_adds()


class Dcunet(nn.Module):
    """F(x_t, y, t): the raw network.

    Args:
        config: sizes.
    """

    def __init__(self, config: DcunetConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        time, widths = config.time_features, [2, *(config.width * multiple for multiple, _, _ in SHAPES)]
        self.time = ComplexTime(time, config.time_layers)
        self.down, up = nn.ModuleList(), []
        for i, (_, stride, dilation) in enumerate(SHAPES):
            inputs, outputs = widths[i], widths[i + 1]
            self.down.append(Stage(ComplexConv(inputs, outputs, KERNEL, stride, dilation), outputs, time))
            beside = outputs * (1 if i == len(SHAPES) - 1 else 2)
            if i:
                back = ComplexTransposedConv(beside, inputs, KERNEL, stride, dilation, bias=False)
                up.append(Stage(back, inputs, time))
            else:
                self.output = ComplexTransposedConv(beside, 1, KERNEL, stride, dilation, bias=True)
        self.up = nn.ModuleList(reversed(up))

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor, valid: Tensor | None = None) -> Tensor:
        """The network's answer to diffused and noisy spectrograms.

        Args:
            x_t: complex[B, 1, F, K], the diffused spectrogram.
            y: complex[B, 1, F, K], the noisy one.
            t: [B].
            valid: bool[B], rows that count in batch statistics; see `BatchNorm`.

        Returns:
            complex[B, 1, F, K], in complex64 or better.

        Raises:
            ConfigError: F is not 8 n + 1, or less than 97.
        """
        bins, frames = x_t.shape[2:]
        if self.config.fitting_bins(bins) != bins:
            raise ConfigError(
                f"spectrograms of {bins} bins",
                f"97 or more, and one more than a multiple of 8, such as {self.config.fitting_bins(bins)}",
                "choose n_fft = 2 F - 2",
            )
        x = stacked(torch.cat((x_t, y), dim=1)).to(self.output.real.dtype)
        x = F.pad(x, (0, padded(frames) - frames))
        time, sizes, skips = self.time(t), [], []
        for stage in self.down:
            sizes.append(tuple(x.shape[2:]))
            x = recomputed(self.activation_checkpointing, stage, x, time, valid)
            skips.append(x)
        x = skips.pop()
        for stage in self.up:
            x = recomputed(self.activation_checkpointing, stage, x, time, valid, sizes.pop())
            x = joined(x, skips.pop())
        return unstacked(wide(self.output(x, sizes.pop())[..., :frames]))

    def multiply_adds(self, bins: int, frames: int) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions and linear layers."""
        size, places = (bins, padded(frames)), []
        count = sum(cast("ComplexLinear", layer).multiply_adds() for layer in self.time.layers)
        for stage in stages_of(self.down):
            size = cast("ComplexConv", stage.conv).out_size(size)
            places.append(size[0] * size[1])
            count += stage.multiply_adds(places[-1])
        for stage in stages_of(self.up):
            count += stage.multiply_adds(places.pop())
        return count + self.output.multiply_adds(places.pop())


def padded(frames: int) -> int:
    """The least number of frames from `frames` on that the strides divide."""
    return frames + (1 - frames) % FRAMES


def stages_of(part: nn.ModuleList) -> list[Stage]:
    """Members of a list of stages."""
    return [cast("Stage", stage) for stage in part]
