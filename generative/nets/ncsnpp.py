"""NCSN++ for complex spectrograms: the score network of SGMSE+ (Richter et al. 2023) and its later variants.

A U-Net of residual blocks (Song et al. 2021, appendix H.2) over real and imaginary parts of the diffused and the noisy
spectrogram. In v1 and v2 the input also enters at every level, filtered down (`combine`), and every level adds to the
output, filtered up (`read_out`).

Shapes: B samples, F frequency bins, K frames; F and K multiples of `config.multiple`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.nets.ncsnpp_blocks import Block, TimeEmbedding, WideConv2d, conv
from generative.nets.ncsnpp_config import NcsnppConfig
from generative.nets.ncsnpp_levels import CHANNELS, UpLevel, blocks_of, stacked_down, stacked_up
from generative.nets.precision import wide
from generative.nets.recomputation import recomputed


class Ncsnpp(nn.Module):
    """F(x_t, y, t): the raw network, before any sign or scaling of the method around it.

    Args:
        config: sizes and variant.

    Raises:
        ConfigError: widths that group normalisation cannot split.
    """

    def __init__(self, config: NcsnppConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.time = TimeEmbedding(config.width)
        self.stem = conv(CHANNELS, config.width)
        self.down, skips = stacked_down(config)
        width, time = skips[-1], 4 * config.width
        self.middle = nn.ModuleList(Block(width, width, time, attention=attention) for attention in (True, False))
        self.up = stacked_up(config, skips)
        self.output = WideConv2d(CHANNELS, 2, 1)

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor, valid: Tensor | None = None) -> Tensor:
        """The network's answer to diffused and noisy spectrograms.

        Args:
            x_t: complex[B, 1, F, K], the diffused spectrogram.
            y: complex[B, 1, F, K], the noisy one.
            t: [B], times above 0.
            valid: not needed, since items do not see each other; there for networks that have batch statistics.

        Returns:
            complex[B, 1, F, K], in complex64 or better.

        Raises:
            ConfigError: F or K is no multiple of `config.multiple`.
        """
        self._check(x_t, y)
        x = real_channels(torch.cat((x_t, y), dim=1)).to(self.stem.weight.dtype)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            # Convolutions and FIR are faster in this layout, but the backward pass of group normalisation is not.
            x = x.contiguous(memory_format=torch.channels_last)
        read = self._read(x if self.config.centered else 2 * x - 1, F.silu(self.time(t)))
        scale = wide(t)[:, None, None, None]
        if self.config.variant == "v1":
            parts = self.output(wide(read) / scale)
        else:
            parts = self.output(read)
            parts = parts / scale if self.config.variant == "48k" else parts
        return torch.complex(parts[:, :1], parts[:, 1:])

    def _check(self, x_t: Tensor, y: Tensor) -> None:
        multiple = self.config.multiple
        if x_t.shape != y.shape or x_t.ndim != 4 or x_t.shape[1] != 1 or any(n % multiple for n in x_t.shape[2:]):
            raise ConfigError(
                f"spectrograms of shapes {list(x_t.shape)} and {list(y.shape)} for a network of "
                f"{len(self.config.multipliers)} levels",
                f"[B, 1, F, K] both, with bins F and frames K that are multiples of {multiple}",
                "pad the frames; choose n_fft = 2 F - 2; or give method.network.multipliers fewer levels",
            )

    def _read(self, x: Tensor, time: Tensor) -> Tensor:
        """x[B, 4, F, K], time[B, T] -> the sum of what the levels read out, [B, 4, F, K]."""
        recompute = self.activation_checkpointing
        skips = [self.stem(x)]
        for level in self.down:
            found, x = level(skips[-1], x, time, recompute)
            skips += found
        h = skips[-1]
        for block in self.middle:
            h = recomputed(recompute, block, h, time)
        read: Tensor | None = None
        for level in reversed(self.up):
            taken = [skips.pop() for _ in cast("UpLevel", level).blocks]
            h, read = level(h, taken, read, time, recompute)
        assert read is not None  # level 0 reads out in every variant
        return read

    def multiply_adds(self, bins: int, frames: int) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions, linear layers and attention."""
        positions = bins * frames
        count: int = self.time.multiply_adds() + positions * (self.stem.weight.numel() + self.output.weight.numel())
        for levels in (self.down, self.up):
            count += sum(cast("UpLevel", level).multiply_adds(positions >> 2 * i) for i, level in enumerate(levels))
        deepest = positions >> 2 * (len(self.down) - 1)
        return count + sum(block.multiply_adds(deepest) for block in blocks_of(self.middle))


def real_channels(spectra: Tensor) -> Tensor:
    """complex[B, C, F, K] -> real[B, 2C, F, K]: real part, imaginary part of the first, then of the next."""
    return torch.view_as_real(spectra).movedim(-1, 2).flatten(1, 2)
