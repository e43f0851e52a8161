"""What EDM's two U-Nets have in common: an encoder, a decoder on its skip connections, features of the encoder.

Parameters have the names of the released weights: `enc.32x32_block0.conv0.weight`, where 32 is the side.

Shapes: B samples, C channels, R = side of a sample, K classes, T features of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.edm_blocks import BlockStyle, UNetBlock
from generative.nets.edm_config import UNetConfig
from generative.nets.edm_layers import Resample, ResampledConv, conv
from generative.nets.recomputation import recomputed


@dataclass(frozen=True)
class UNetSize:
    """What the data and the method tell a U-Net.

    Args:
        side: R.
        channels: of a sample.
        classes: K; 0: it is told no class.
        augment: labels of augmentation that it is told; 0: none.
    """

    side: int
    channels: int
    classes: int = 0
    augment: int = 0


@dataclass(frozen=True)
class Told:
    """What a U-Net is told beside its input.

    Args:
        embedding: [B, T], of noise level, class and augmentation.
        seeds: int64[B] of the dropout; None: nothing is dropped.
        recompute: whether the backward pass computes activations again.
    """

    embedding: Tensor
    seeds: Tensor | None
    recompute: bool

    def through(self, block: nn.Module, x: Tensor) -> Tensor:
        """x after a block."""
        return recomputed(self.recompute, block, x, self.embedding, self.seeds)


@dataclass(frozen=True)
class Encoded:
    """What an encoder found.

    Args:
        skips: for the decoder, the last being its input.
        features: [B, C, R / 2^level, R / 2^level], after the last block of each level.
    """

    skips: list[Tensor]
    features: list[Tensor]

    def detached(self) -> Encoded:
        """The same without gradient."""
        return Encoded([skip.detach() for skip in self.skips], self.features)


class UNet(nn.Module):
    """Encoder and decoder; how noise levels are embedded, and what else comes in and goes out, is the subclass's.

    Args:
        config: sizes.
        size: what the data tell.
        style: of the blocks.
        first: channels after the first convolution.
        attends: (side, whether it is the last block of a level on the way up) -> whether a block on the way up has
            attention; on the way down the levels of `config.attention` have it.
    """

    def __init__(
        self, config: UNetConfig, size: UNetSize, style: BlockStyle, first: int, attends: Callable[[int, bool], bool]
    ) -> None:
        super().__init__()
        self.config, self.size, self.style = config, size, style
        number = count()

        def block(inputs: int, outputs: int, **further: object) -> UNetBlock:
            return UNetBlock(inputs, outputs, style, next(number), **further)  # type: ignore[arg-type]

        self.enc, skips = self._encoder(first, block)
        self.dec = self._decoder(skips, block, attends)

    @property
    def feature_maps(self) -> list[tuple[int, int]]:
        """(channels, side) of the features of each level."""
        return [(channels, side) for side, channels in self._levels]

    @property
    def _levels(self) -> list[tuple[int, int]]:
        """(side, channels) of each level."""
        config = self.config
        return [(self.size.side >> i, config.width * m) for i, m in enumerate(config.multipliers)]

    def _encoder(self, width: int, block: Callable[..., UNetBlock]) -> tuple[nn.ModuleDict, list[int]]:
        parts, skips, aside = nn.ModuleDict(), [width], self.size.channels
        for level, (side, channels) in enumerate(self._levels):
            if level:
                parts[f"{side}x{side}_down"] = block(width, width, direction="down")
                aside = self._add_input(parts, side, aside, width)
                skips.append(width)
            else:
                parts[f"{side}x{side}_conv"] = conv(self.size.channels, width, 3, self.style.init)
            for i in range(self.config.blocks):
                attention = side in self.config.attention
                parts[f"{side}x{side}_block{i}"] = block(width, channels, attention=attention)
                width = channels
                skips.append(width)
        return parts, skips

    def _decoder(
        self, skips: Sequence[int], block: Callable[..., UNetBlock], attends: Callable[[int, bool], bool]
    ) -> nn.ModuleDict:
        parts, left, width = nn.ModuleDict(), list(skips), skips[-1]
        for level, (side, channels) in reversed(list(enumerate(self._levels))):
            if level == len(self._levels) - 1:
                parts[f"{side}x{side}_in0"] = block(width, width, attention=True)
                parts[f"{side}x{side}_in1"] = block(width, width)
            else:
                parts[f"{side}x{side}_up"] = block(width, width, direction="up")
            for i in range(self.config.blocks + 1):
                attention = attends(side, i == self.config.blocks)
                parts[f"{side}x{side}_block{i}"] = block(width + left.pop(), channels, attention=attention)
                width = channels
            self._add_output(parts, side, width)
        return parts

    def _add_input(self, parts: nn.ModuleDict, side: int, aside: int, width: int) -> int:
        """Parts by which the input enters at a lower level too; channels of what stands aside for the next."""
        return aside

    def _add_output(self, parts: nn.ModuleDict, side: int, width: int) -> None:
        """Parts that read out of a level."""

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """noise[B], labels[B, K], augment[B, L] -> [B, T]."""
        raise NotImplementedError

    def encode(self, x: Tensor, told: Told) -> Encoded:
        """x[B, channels, R, R] -> skip connections and features."""
        skips: list[Tensor] = []
        features: list[Tensor] = []
        aside, last = x, f"_block{self.config.blocks - 1}"
        for name, part in self.enc.items():
            if "_aux_" in name:
                x, aside = self._enter(name, part, x, aside, told)
                skips[-1] = x
                continue
            x = told.through(part, x) if isinstance(part, UNetBlock) else part(x)
            skips.append(x)
            if name.endswith(last):
                features.append(x)
        return Encoded(skips, features)

    def _enter(self, name: str, part: nn.Module, x: Tensor, aside: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """Features and what stands aside after one of the parts of `_add_input`."""
        raise NotImplementedError

    def decode(self, encoded: Encoded, told: Told) -> Tensor:
        """What the network puts out, [B, channels, R, R]."""
        left, out = list(encoded.skips), None
        x = left[-1]
        for name, part in self.dec.items():
            if not isinstance(part, UNetBlock):
                x, out = self._leave(name, part, x, out)
                continue
            if part.inputs != x.shape[1]:
                x = torch.cat((x, left.pop()), dim=1)
            x = told.through(part, x)
        return self._read(x, out)

    def _leave(self, name: str, part: nn.Module, x: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features and what has been read out after one of the parts of `_add_output`."""
        raise NotImplementedError

    def _read(self, x: Tensor, out: Tensor | None) -> Tensor:
        """The output from the last features, or from what has been read out."""
        assert out is not None
        return out

    def multiply_adds(self, encoder_only: bool = False) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions, linear layers and attention."""
        total = sum(part.weight.numel() for part in self.children() if isinstance(part, nn.Linear))
        for parts in (self.enc,) if encoder_only else (self.enc, self.dec):
            for name, part in parts.items():
                total += _multiply_adds(part, int(name.partition("x")[0]) ** 2, self.size.channels)
        return total


def _multiply_adds(part: nn.Module, positions: int, channels: int) -> int:
    if isinstance(part, UNetBlock | ResampledConv):
        return part.multiply_adds(positions)
    if isinstance(part, Resample):  # of the in- or output itself
        return part.multiply_adds(channels, positions)
    return positions * part.weight.numel() if isinstance(part, nn.Conv2d) else 0


def class_rows(labels: Tensor | None, layer: nn.Linear, rows: int) -> Tensor:
    """What a layer is told of the classes, [rows, K]: zeros where nothing is known."""
    if labels is None:
        return layer.weight.new_zeros(rows, layer.in_features)
    return labels.to(layer.weight.dtype)


def silu_of(layer: nn.Module, x: Tensor) -> Tensor:
    """silu(layer x)."""
    return F.silu(cast("Tensor", layer(x)))
