"""Dropout whose masks do not depend on the batch: functions of the sample's seed, the layer and the place in it.

Masks of a global generator would change with the number of ranks, with micro-batches, and when activations are computed
again. Here each place is hashed on the device that the features are on, so that nothing is drawn or kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WORD = 2**32
_MASK = WORD - 1
_FACTOR = 0x45D9F3B
"""Odd and below 2^27, so that products of 32-bit words stay below 2^63."""


def mixed(words: Tensor) -> Tensor:
    """A bijection of 32-bit words (int64, 0 .. 2^32 - 1) that looks random: two rounds of xor-shift and multiply."""
    for _ in range(2):
        words = ((words >> 16) ^ words).mul_(_FACTOR).bitwise_and_(_MASK)
    return (words >> 16) ^ words


def kept(seeds: Tensor, layer: int, shape: torch.Size, rate: float) -> Tensor:
    """Which features stay: bool[B, *shape], each True with probability 1 - rate.

    Args:
        seeds: int64[B], 0 .. 2^32 - 1, one a sample.
        layer: number of the layer, so that each has masks of its own.
        shape: of one sample.
        rate: part that is dropped, in [0, 1).
    """
    places = mixed(torch.arange(math.prod(shape), device=seeds.device))
    own = mixed((seeds + layer * 0x9E3779B1) & _MASK)
    words = mixed(places[None] ^ own[:, None])
    return (words >= round(rate * WORD)).view(len(seeds), *shape)


class SampleDropout(nn.Module):
    """x -> x / (1 - rate) where it stays, else 0, in train mode and with seeds only.

    Args:
        rate: part that is dropped, in [0, 1).
        layer: see `kept`.
    """

    def __init__(self, rate: float, layer: int) -> None:
        super().__init__()
        self.rate, self.layer = rate, layer

    def forward(self, x: Tensor, seeds: Tensor | None) -> Tensor:
        """x[B, ...], seeds int64[B], or None: everything stays."""
        if seeds is None or not self.training or not self.rate:
            return x
        stays = kept(seeds, self.layer, x.shape[1:], self.rate)
        return torch.where(stays, x / (1 - self.rate), 0.0)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, layer={self.layer}"
