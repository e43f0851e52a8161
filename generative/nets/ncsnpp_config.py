"""Sizes of NCSN++. Free of torch, so that configurations load quickly."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination


class NcsnppConfig(Config):
    """Size and variant of the network; as it stands, the published one of 65.6 million parameters."""

    name: Literal["ncsnpp"] = "ncsnpp"
    """Picks this network."""
    variant: Literal["v1", "v2", "48k"] = "v2"
    """v1: what is read out is divided by t, then mixed to real and imaginary part. v2: not divided; scaling is the
    method's. 48k: no pyramids of in- and outputs, and divided by t at the very end."""
    width: PositiveInt = 128
    """Channels of the first level, and half as many time features before the first linear layer."""
    multipliers: tuple[PositiveInt, ...] = (1, 1, 2, 2, 2, 2, 2)
    """Channels of each level as multiples of `width`; each level has half the bins and frames of the one before."""
    res_blocks: PositiveInt = 2
    """Residual blocks of a level on the way down; one more on the way up."""
    attention_levels: tuple[int, ...] = (4,)
    """Levels with self-attention: level i has F / 2^i bins, so 4 is the published height of 16 for F = 256. The
    bottleneck always has it."""
    centered: bool = True
    """Inputs as they are; false: 2 x - 1 of them (checkpoints from before November 2022, and StoRM's)."""

    @model_validator(mode="after")
    def _consistent(self) -> NcsnppConfig:
        if not self.multipliers:
            raise combination("multipliers=[]", "a multiple for each level", "give network.multipliers, as [1, 2, 2]")
        wrong = [level for level in self.attention_levels if not 0 <= level < len(self.multipliers)]
        if wrong:
            raise combination(
                f"attention_levels={list(self.attention_levels)} with {len(self.multipliers)} levels",
                f"levels from 0 to {len(self.multipliers) - 1}",
                f"remove {wrong[0]} from network.attention_levels",
            )
        return self

    @property
    def multiple(self) -> int:
        """What the numbers of bins and of frames must be multiples of."""
        return 1 << (len(self.multipliers) - 1)

    def fitting_bins(self, bins: int) -> int:
        """The number of bins F, `bins` or the next above, that the network takes."""
        return -(-bins // self.multiple) * self.multiple
