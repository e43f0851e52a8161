"""ADM (Dhariwal and Nichol 2021, "Diffusion models beat GANs on image synthesis") as EDM has it."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from generative.nets.edm_blocks import BlockStyle
from generative.nets.edm_config import DhariwalConfig
from generative.nets.edm_layers import Init, PositionalEmbedding, conv, linear
from generative.nets.edm_unet import UNet, UNetSize, class_rows, silu_of
from generative.nets.ncsnpp_blocks import group_norm

INIT = Init("kaiming", math.sqrt(1 / 3), math.sqrt(1 / 3))
ZERO = Init("kaiming", 0.0)
EPS = 1e-5
HEAD_CHANNELS = 64


class DhariwalUNet(UNet):
    """F(x, c): see `UNet`. The embedding scales and shifts; levels with attention have it in every block.

    Args:
        config: sizes.
        size: what the data tell.
    """

    def __init__(self, config: DhariwalConfig, size: UNetSize) -> None:
        embedding = config.width * config.embedding_multiplier
        style = BlockStyle(
            embedding=embedding,
            dropout=config.dropout,
            taps=(1, 1),
            adaptive_scale=True,
            project_shortcut=False,
            skip_scale=1.0,
            eps=EPS,
            head_channels=HEAD_CHANNELS,
            init=INIT,
            init_zero=ZERO,
            init_attention=INIT,
        )
        first = config.width * config.multipliers[0]
        super().__init__(config, size, style, first, lambda side, last: side in config.attention)
        self.map_noise = PositionalEmbedding(config.width, endpoint=False)
        self.map_augment = linear(size.augment, config.width, ZERO, bias=False) if size.augment else None
        self.map_layer0 = linear(config.width, embedding, INIT)
        self.map_layer1 = linear(embedding, embedding, INIT)
        classes = Init("normal", math.sqrt(size.classes))
        self.map_label = linear(size.classes, embedding, classes, bias=False) if size.classes else None
        self.out_norm = group_norm(first, EPS)
        self.out_conv = conv(first, size.channels, 3, ZERO)

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        found = self.map_noise(noise).to(self.map_layer0.weight.dtype)
        if self.map_augment is not None:
            found = found + self.map_augment(class_rows(augment, self.map_augment, len(noise)))
        found = self.map_layer1(silu_of(self.map_layer0, found))
        if self.map_label is not None:
            found = found + self.map_label(class_rows(labels, self.map_label, len(noise)))
        return F.silu(found)

    def _read(self, x: Tensor, out: Tensor | None) -> Tensor:
        read: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return read

    def multiply_adds(self, encoder_only: bool = False) -> int:
        last = 0 if encoder_only else self.size.side**2 * self.out_conv.weight.numel()
        return super().multiply_adds(encoder_only) + last
