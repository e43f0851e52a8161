"""A small fully connected denoiser, for images of a few pixels: as good there as a U-Net of many times its cost.

Residual blocks h <- h + W2 silu(W1 silu(norm h) + V e), where e is an embedding of noise level and class. The first
half of the blocks is called the encoder; its features are vectors, given as maps of one place, [B, C, 1, 1].

Shapes: B samples, C = width, K classes, T features of the embedding.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.dropout import SampleDropout
from generative.nets.edm_config import MlpConfig
from generative.nets.edm_layers import PositionalEmbedding
from generative.nets.edm_unet import Encoded, Told, UNetSize, class_rows, silu_of


class MlpBlock(nn.Module):
    """h -> h + W2 silu(W1 silu(norm h) + V e).

    Args:
        width: C.
        embedding: T.
        dropout: part of the features before W2 that is dropped in training.
        number: of the block, for its dropout.
    """

    def __init__(self, width: int, embedding: int, dropout: float, number: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.affine = nn.Linear(embedding, width)
        self.dropout = SampleDropout(dropout, number)
        self.second = nn.Linear(width, width)
        _set_to_zero(self.second)

    def forward(self, h: Tensor, embedding: Tensor, seeds: Tensor | None) -> Tensor:
        """h[B, C], embedding[B, T], seeds int64[B] of the dropout or None."""
        inner = F.silu(self.first(F.silu(self.norm(h))) + self.affine(embedding))
        out: Tensor = h + self.second(self.dropout(inner, seeds))
        return out


class MlpNet(nn.Module):
    """F(x, c), with the doors of a U-Net (`generative.nets.edm_unet.UNet`).

    Args:
        config: sizes.
        size: what the data tell.
    """

    def __init__(self, config: MlpConfig, size: UNetSize) -> None:
        super().__init__()
        self.config, self.size = config, size
        width, embedding, pixels = config.width, config.embedding, size.channels * size.side**2
        self.map_noise = PositionalEmbedding(embedding, endpoint=True)
        self.map_label = nn.Linear(size.classes, embedding) if size.classes else None
        self.map_augment = nn.Linear(size.augment, embedding, bias=False) if size.augment else None
        self.map_layer0 = nn.Linear(embedding, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        blocks = [MlpBlock(width, embedding, config.dropout, number) for number in range(config.blocks)]
        self.enc = nn.ModuleList([nn.Linear(pixels, width), *blocks[: config.levels]])
        last = nn.Linear(width, pixels)
        self.dec = nn.ModuleList([*blocks[config.levels :], nn.LayerNorm(width), last])
        _set_to_zero(last)

    @property
    def feature_maps(self) -> list[tuple[int, int]]:
        """(channels, side) of the features after each block of the encoder."""
        return [(self.config.width, 1)] * self.config.levels

    def embed(self, noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """noise[B], labels[B, K], augment[B, L] -> [B, T]."""
        found = self.map_noise(noise).to(self.map_layer0.weight.dtype)
        if self.map_label is not None:
            found = found + self.map_label(
                class_rows(labels, self.map_label, len(noise)) * math.sqrt(self.size.classes)
            )
        if self.map_augment is not None:
            found = found + self.map_augment(class_rows(augment, self.map_augment, len(noise)))
        return silu_of(self.map_layer1, silu_of(self.map_layer0, found))

    def encode(self, x: Tensor, told: Told) -> Encoded:
        """x[B, channels, R, R] -> features."""
        first, *blocks = self.enc
        h, features = first(x.flatten(1)), []
        for block in blocks:
            h = told.through(block, h)
            features.append(h[:, :, None, None])
        return Encoded([h], features)

    def decode(self, encoded: Encoded, told: Told) -> Tensor:
        """What the network puts out, [B, channels, R, R]."""
        *blocks, norm, last = self.dec
        (h,) = encoded.skips
        for block in blocks:
            h = told.through(block, h)
        raw: Tensor = last(F.silu(norm(h)))
        return raw.view(-1, self.size.channels, self.size.side, self.size.side)

    def multiply_adds(self, encoder_only: bool = False) -> int:
        """Multiplications and additions of one sample, in pairs: linear layers."""
        skipped = {id(layer) for layer in self.dec.modules()} if encoder_only else set()
        layers = [layer for layer in self.modules() if isinstance(layer, nn.Linear) and id(layer) not in skipped]
        return sum(layer.weight.numel() for layer in layers)


def _set_to_zero(layer: nn.Linear) -> None:
    """The block, or the network, begins as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
