"""Sizes of the denoising networks of EDM. Free of torch, so that configurations load quickly."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination


class _UNetConfig(Config):
    """What both U-Nets have in common."""

    width: PositiveInt = 128
    """Channels that `multipliers` are multiples of; the embedding has `embedding_multiplier` times as many."""
    multipliers: tuple[PositiveInt, ...] = (2, 2, 2)
    """Channels of each level as multiples of `width`; each level has half the side of the one before."""
    blocks: PositiveInt = 4
    """Residual blocks of a level on the way down; one more on the way up."""
    attention: tuple[PositiveInt, ...] = (16,)
    """Sides in pixels of the levels with self-attention. The bottleneck always has it."""
    dropout: float = Field(default=0.13, ge=0, lt=1)
    """Part of the features that is dropped in each block in training."""
    embedding_multiplier: PositiveInt = 4
    """Features of the embedding of noise level and class, as a multiple of `width`."""

    @model_validator(mode="after")
    def _has_levels(self) -> _UNetConfig:
        if not self.multipliers:
            raise combination("multipliers=[]", "a multiple for each level", "give network.multipliers, as [2, 2, 2]")
        return self

    @property
    def multiple(self) -> int:
        """What sides must be a multiple of, to be halved from level to level."""
        return 1 << (len(self.multipliers) - 1)


class SongConfig(_UNetConfig):
    """DDPM++ and NCSN++ (Song et al. 2021); as it stands, EDM's DDPM++ for CIFAR-10 (55.7 million parameters)."""

    name: Literal["song"] = "song"
    """Picks this network."""
    embedding: Literal["positional", "fourier"] = "positional"
    """Of the noise level: cosines of fixed frequencies (DDPM++), or of random ones (NCSN++)."""
    noise_multiplier: PositiveInt = 1
    """Features of that, as a multiple of `width`; 2 for NCSN++."""
    encoder: Literal["standard", "skip", "residual"] = "standard"
    """How the input also enters at lower levels: not at all (DDPM++), added, or as a residual branch (NCSN++)."""
    decoder: Literal["standard", "skip"] = "standard"
    """How the output is read out: from the last level, or from all levels."""
    filter: tuple[PositiveInt, ...] = (1, 1)
    """Taps of the resampling filter; [1, 3, 3, 1] for NCSN++."""


class DhariwalConfig(_UNetConfig):
    """ADM (Dhariwal and Nichol 2021); as it stands, EDM's for ImageNet at 64 x 64 (295.9 million parameters)."""

    name: Literal["dhariwal"] = "dhariwal"
    """Picks this network."""
    width: PositiveInt = 192
    """Channels that `multipliers` are multiples of."""
    multipliers: tuple[PositiveInt, ...] = (1, 2, 3, 4)
    """Channels of each level as multiples of `width`; each level has half the side of the one before."""
    blocks: PositiveInt = 3
    """Residual blocks of a level on the way down; one more on the way up."""
    attention: tuple[PositiveInt, ...] = (32, 16, 8)
    """Sides in pixels of the levels with self-attention."""
    dropout: float = Field(default=0.10, ge=0, lt=1)
    """Part of the features that is dropped in each block in training."""


class MlpConfig(Config):
    """Residual blocks of fully connected layers, for images of a few pixels (0.4 million parameters as it stands)."""

    name: Literal["mlp"] = "mlp"
    """Picks this network."""
    width: PositiveInt = 192
    """Features of each block."""
    blocks: PositiveInt = 3
    """Residual blocks; the first half of them is the encoder, with features after each block."""
    embedding: PositiveInt = 128
    """Features of the embedding of noise level and class, an even number."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the features that is dropped in each block in training."""
    multiple: ClassVar[int] = 1
    """What sides must be a multiple of."""

    @property
    def levels(self) -> int:
        """Blocks of the encoder."""
        return (self.blocks + 1) // 2

    @model_validator(mode="after")
    def _pairs_of_cosine_and_sine(self) -> MlpConfig:
        if self.embedding % 2:
            raise combination(f"embedding={self.embedding}", "an even number", "correct network.embedding")
        return self


UNetConfig = SongConfig | DhariwalConfig
"""The U-Nets that there are; `name` picks one."""

NetworkConfig = Annotated[SongConfig | DhariwalConfig | MlpConfig, Field(discriminator="name")]
"""The section `method.network` of whatever is made of such a network."""
