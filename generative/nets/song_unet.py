"""DDPM++ and NCSN++ (Song et al. 2021, "Score-based generative modeling through SDEs") as EDM has them."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.edm_blocks import BlockStyle
from generative.nets.edm_config import SongConfig
from generative.nets.edm_layers import (
    FourierEmbedding,
    Init,
    PositionalEmbedding,
    Resample,
    ResampledConv,
    conv,
    linear,
)
from generative.nets.edm_unet import Told, UNet, UNetSize, class_rows, silu_of
from generative.nets.ncsnpp_blocks import HALF, group_norm

NEAR_ZERO = Init("xavier", 1e-5)
EPS = 1e-6


class SongUNet(UNet):
    """F(x, c): see `UNet`. Noise levels and classes are embedded together; blocks add the embedding.

    Args:
        config: sizes and variant.
        size: what the data tell.
    """

    def __init__(self, config: SongConfig, size: UNetSize) -> None:
        init, noise = Init("xavier"), config.width * config.noise_multiplier
        embedding = config.width * config.embedding_multiplier
        style = BlockStyle(
            embedding=embedding,
            dropout=config.dropout,
            taps=config.filter,
            adaptive_scale=False,
            project_shortcut=True,
            skip_scale=HALF,
            eps=EPS,
            head_channels=None,
            init=init,
            init_zero=NEAR_ZERO,
            init_attention=Init("xavier", math.sqrt(0.2)),
        )
        super().__init__(config, size, style, config.width, lambda side, last: last and side in config.attention)
        positional = config.embedding == "positional"
        self.map_noise = PositionalEmbedding(noise, endpoint=True) if positional else FourierEmbedding(noise)
        self.map_label = linear(size.classes, noise, init) if size.classes else None
        self.map_augment = linear(size.augment, noise, init, bias=False) if size.augment else None
        self.map_layer0 = linear(noise, embedding, init)
        self.map_layer1 = linear(embedding, embedding, init)

    @property
    def _variant(self) -> SongConfig:
        return cast("SongConfig", self.config)

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        cosines, sines = self.map_noise(noise).chunk(2, dim=1)
        found = torch.cat((sines, cosines), dim=1).to(self.map_layer0.weight.dtype)
        if self.map_label is not None:
            # One class among K has the length that K features of unit size have.
            rows = class_rows(labels, self.map_label, len(noise)) * math.sqrt(self.map_label.in_features)
            found = found + self.map_label(rows)
        if self.map_augment is not None:
            # Zeros add nothing, but the layer stays part of the graph, so that it may be trained along.
            found = found + self.map_augment(class_rows(augment, self.map_augment, len(noise)))
        return silu_of(self.map_layer1, silu_of(self.map_layer0, found))

    def _add_input(self, parts: nn.ModuleDict, side: int, aside: int, width: int) -> int:
        kind, taps, init = self._variant.encoder, self._variant.filter, self.style.init
        if kind == "skip":
            parts[f"{side}x{side}_aux_down"] = Resample("down", taps)
            parts[f"{side}x{side}_aux_skip"] = conv(aside, width, 1, init)
        if kind == "residual":
            parts[f"{side}x{side}_aux_residual"] = ResampledConv(aside, width, 3, "down", taps, init, fused=True)
            return width
        return aside

    def _enter(self, name: str, part: nn.Module, x: Tensor, aside: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        if name.endswith("_aux_down"):
            return x, part(aside)
        if name.endswith("_aux_skip"):
            return x + part(aside), aside
        x = (x + part(aside)) * HALF
        return x, x

    def _add_output(self, parts: nn.ModuleDict, side: int, width: int) -> None:
        pyramid = self._variant.decoder == "skip"
        deepest = side == self._levels[-1][0]
        if pyramid and not deepest:
            parts[f"{side}x{side}_aux_up"] = Resample("up", self._variant.filter)
        if pyramid or side == self.size.side:
            parts[f"{side}x{side}_aux_norm"] = group_norm(width, EPS)
            parts[f"{side}x{side}_aux_conv"] = conv(width, self.size.channels, 3, NEAR_ZERO)

    def _leave(self, name: str, part: nn.Module, x: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if name.endswith("_aux_up"):
            return x, part(out)
        if name.endswith("_aux_norm"):
            return x, out
        norm = self.dec[name.removesuffix("conv") + "norm"]
        read = part(F.silu(norm(x)))
        return x, read if out is None else out + read
