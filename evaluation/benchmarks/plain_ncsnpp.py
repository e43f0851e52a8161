"""NCSN++ written out as it was published, to compare the library's with: one module after the other, nothing merged.

Source: Song et al. 2021 (arXiv 2011.13456, appendix H.2) and Richter et al. 2023 (arXiv 2208.05830). Tensors have the
released names (`all_modules.N...`), so that released weights fit in as they are.

Shapes: B samples, C channels, F frequency bins, K frames, T features of the time embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.methods.sgmse.layout import to_released
from generative.nets.ncsnpp import Ncsnpp
from generative.nets.ncsnpp_config import NcsnppConfig

TAPS = (1.0, 3.0, 3.0, 1.0)
PARTS = 4
"""Channels of the input (real and imaginary parts of two spectrograms) and of the output pyramid."""


class PlainFir(nn.Module):
    """x[B, C, F, K] -> twice or half the size, filtered by [1, 3, 3, 1] in both directions.

    As published where its kernels for GPUs are not used: every channel of every sample is an image of its own for one
    full convolution, zeros between the samples before it (up), or every other result dropped after it (down).

    Args:
        up: twice the size, else half.
        depthwise: the same numbers by one strided convolution of each channel.
    """

    kernel: Tensor

    def __init__(self, up: bool, depthwise: bool) -> None:
        super().__init__()
        self.up, self.depthwise = up, depthwise
        taps = torch.tensor(TAPS)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        self.register_buffer("kernel", (4 * kernel if up else kernel)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise:
            kernels = self.kernel.expand(x.shape[1], -1, -1, -1)
            if self.up:
                return F.conv_transpose2d(x, kernels, stride=2, padding=1, groups=x.shape[1])
            return F.conv2d(x, kernels, stride=2, padding=1, groups=x.shape[1])
        before, after = (2, 1) if self.up else (1, 1)
        wide = F.pad(_zeros_between(x) if self.up else x, (before, after, before, after))
        images = F.conv2d(wide.flatten(0, 1)[:, None], self.kernel)
        found = images.reshape(*x.shape[:2], *images.shape[2:])
        return found if self.up else found[..., ::2, ::2]


def _zeros_between(x: Tensor) -> Tensor:
    """[B, C, F, K] -> [B, C, 2F, 2K]: a zero after each sample, in both directions."""
    batch, channels, bins, frames = x.shape
    spaced = F.pad(x[..., :, None, :, None], (0, 1, 0, 0, 0, 1))
    return spaced.reshape(batch, channels, 2 * bins, 2 * frames)


class PlainFourier(nn.Module):
    """ln t[B] -> [sin, cos](2 pi ln t W), [B, 2 width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, log_t: Tensor) -> Tensor:
        phase = 2 * math.pi * log_t[:, None] * self.W
        return torch.cat((phase.sin(), phase.cos()), dim=1)


class PlainNin(nn.Module):
    """x[B, C, F, K] -> channels mixed by W[inputs, outputs], plus b."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.zeros(channels, channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bcfk,cd->bdfk", x, self.W) + self.b[:, None, None]


class PlainAttention(nn.Module):
    """(x + attention(norm(x))) / sqrt 2 by its whole matrix [B, F, K, F K]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (PlainNin(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        query, key, value = self.NIN_0(h), self.NIN_1(h), self.NIN_2(h)
        scores = torch.einsum("bcfk,bcij->bfkij", query, key) * x.shape[1] ** -0.5
        weights = F.softmax(scores.flatten(3), dim=-1).reshape(scores.shape)
        mixed: Tensor = self.NIN_3(torch.einsum("bfkij,bcij->bcfk", weights, value))
        return (x + mixed) / math.sqrt(2)


class PlainBlock(nn.Module):
    """The residual block of BigGAN, resampled before its first convolution where `fir` is given.

    Args:
        inputs, outputs: channels.
        time: T.
        fir: resampling of both branches.
    """

    def __init__(self, inputs: int, outputs: int, time: int, fir: PlainFir | None = None) -> None:
        super().__init__()
        self.GroupNorm_0 = _norm(inputs)
        self.Conv_0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.Dense_0 = nn.Linear(time, outputs)
        self.GroupNorm_1 = _norm(outputs)
        self.Dropout_0 = nn.Dropout(0.0)
        self.Conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.Conv_2 = nn.Conv2d(inputs, outputs, 1) if fir or inputs != outputs else None
        self.fir, self.act = fir, nn.SiLU()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x[B, C, F, K], time embedding [B, T] -> [B, outputs, F', K']."""
        h = self.act(self.GroupNorm_0(x))
        if self.fir is not None:
            h, x = self.fir(h), self.fir(x)
        h = self.Conv_0(h)
        h = h + self.Dense_0(self.act(time))[:, :, None, None]
        h = self.act(self.GroupNorm_1(h))
        h = self.Conv_1(self.Dropout_0(h))
        if self.Conv_2 is not None:
            x = self.Conv_2(x)
        total: Tensor = (x + h) / math.sqrt(2)
        return total


class PlainCombine(nn.Module):
    """conv1x1(pyramid) + h: the input, filtered down, joins the features."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(PARTS, outputs, 1)

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        total: Tensor = self.Conv_0(pyramid) + h
        return total


class PlainNcsnpp(nn.Module):
    """The network of variants v1 and v2, a flat list of modules that the forward pass walks through.

    Args:
        config: sizes.
        depthwise: FIR by depthwise convolutions, all else as published.

    Raises:
        ValueError: variant 48k.
    """

    def __init__(self, config: NcsnppConfig, depthwise: bool = False) -> None:
        super().__init__()
        if config.variant == "48k":
            raise ValueError("variant 48k is not written out here, expected v1 or v2")
        self.config = config
        self.output_layer = nn.Conv2d(PARTS, 2, 1)  # the released list of parameters begins with it
        self.grow, self.shrink = PlainFir(True, depthwise), PlainFir(False, depthwise)
        self.all_modules = nn.ModuleList(_modules(config, self.grow, self.shrink))

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Complex [B, 1, F, K] both and times [B] -> complex [B, 1, F, K]."""
        x = torch.cat((x_t.real, x_t.imag, y.real, y.imag), dim=1)
        if not self.config.centered:
            x = 2 * x - 1
        modules = iter(self.all_modules)
        time = next(modules)(t.log())
        time = next(modules)(time)
        time = next(modules)(F.silu(time))
        skips = self._down(modules, x, time)
        h = next(modules)(skips[-1], time)
        h = next(modules)(h)
        h = next(modules)(h, time)
        read = self._up(modules, h, skips, time)
        if self.config.variant == "v1":
            read = read / t[:, None, None, None]
        parts = self.output_layer(read)
        return torch.complex(parts[:, :1], parts[:, 1:])

    def _down(self, modules: Iterator[nn.Module], x: Tensor, time: Tensor) -> list[Tensor]:
        """What the way up takes from the way down, and the middle its last."""
        skips, last = [next(modules)(x)], len(self.config.multipliers) - 1
        for level in range(last + 1):
            for _ in range(self.config.res_blocks):
                h = next(modules)(skips[-1], time)
                if level in self.config.attention_levels:
                    h = next(modules)(h)
                skips.append(h)
            if level < last:
                h = next(modules)(skips[-1], time)
                x = self.shrink(x)
                skips.append(next(modules)(x, h))
        return skips

    def _up(self, modules: Iterator[nn.Module], h: Tensor, skips: list[Tensor], time: Tensor) -> Tensor:
        """The output pyramid, [B, 4, F, K]."""
        read: Tensor | None = None
        for level in reversed(range(len(self.config.multipliers))):
            for _ in range(self.config.res_blocks + 1):
                h = next(modules)(torch.cat((h, skips.pop()), dim=1), time)
            if level in self.config.attention_levels:
                h = next(modules)(h)
            here = F.silu(next(modules)(h))
            here = next(modules)(here)
            read = here if read is None else self.grow(read) + here
            if level:
                h = next(modules)(h, time)
        assert read is not None
        return read


def _modules(config: NcsnppConfig, grow: PlainFir, shrink: PlainFir) -> Iterator[nn.Module]:
    """The modules in the order in which they are run."""
    width, time, last = config.width, 4 * config.width, len(config.multipliers) - 1
    yield from (PlainFourier(width), nn.Linear(2 * width, time), nn.Linear(time, time))
    yield nn.Conv2d(PARTS, width, 3, padding=1)
    skips = [width]
    for level, outputs in enumerate(width * multiplier for multiplier in config.multipliers):
        for _ in range(config.res_blocks):
            yield PlainBlock(skips[-1], outputs, time)
            if level in config.attention_levels:
                yield PlainAttention(outputs)
            skips.append(outputs)
        if level < last:
            yield from (PlainBlock(outputs, outputs, time, shrink), PlainCombine(outputs))
            skips.append(outputs)
    h = skips[-1]
    yield from (PlainBlock(h, h, time), PlainAttention(h), PlainBlock(h, h, time))
    for level in reversed(range(last + 1)):
        outputs = width * config.multipliers[level]
        for _ in range(config.res_blocks + 1):
            yield PlainBlock(h + skips.pop(), outputs, time)
            h = outputs
        if level in config.attention_levels:
            yield PlainAttention(outputs)
        yield from (_norm(outputs), nn.Conv2d(outputs, PARTS, 3, padding=1))
        if level:
            yield PlainBlock(outputs, outputs, time, grow)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def plain_copy(net: Ncsnpp, depthwise: bool = False) -> PlainNcsnpp:
    """The same function as `net`, with weights of its own, in their type and where they are.

    Raises:
        ValueError: variant 48k.
    """
    state = to_released(net.state_dict(), net.config)
    weight = net.stem.weight
    plain = PlainNcsnpp(net.config, depthwise).to(weight.device, weight.dtype)
    plain.load_state_dict(state)
    return plain
