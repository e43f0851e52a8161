"""Sizes of KL autoencoders, in our names and in those of diffusers' AutoencoderKL. Free of torch and diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import PositiveInt, ValidationError, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.errors import CheckpointError, ConfigError

CLASS = "AutoencoderKL"
DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
NAMES = {
    "channels": "block_out_channels",
    "layers": "layers_per_block",
    "latent": "latent_channels",
    "groups": "norm_num_groups",
    "attention": "mid_block_add_attention",
    "quant_conv": "use_quant_conv",
    "post_quant_conv": "use_post_quant_conv",
}
"""Our names for theirs."""
ABSENT = {"shift_factor": None, "latents_mean": None, "latents_std": None, "act_fn": "silu"}
"""Settings of theirs that are known here with one value only."""
UNTOLD = {"in_channels": 3, "out_channels": 3, "sample_size": 32, "scaling_factor": 0.18215}
"""Their values of what a file does not tell."""


class KlAutoencoderConfig(Config):
    """An autoencoder with a normal distribution of latents for each image; as it stands, Stable Diffusion's (f = 8)."""

    channels: tuple[PositiveInt, ...] = (128, 256, 512, 512)
    """Of each level, from the images down; each level has half the side of the one before."""
    layers: PositiveInt = 2
    """Residual blocks of a level of the encoder; one more in the decoder."""
    latent: PositiveInt = 4
    """Channels of the latents."""
    groups: PositiveInt = 32
    """Groups of channels that are normalised together."""
    attention: bool = True
    """Self-attention at the lowest level."""
    quant_conv: bool = True
    """A pointwise convolution between encoder and latents."""
    post_quant_conv: bool = True
    """The same between latents and decoder."""

    @model_validator(mode="after")
    def _divisible(self) -> KlAutoencoderConfig:
        if not self.channels or any(c % self.groups for c in self.channels):
            raise combination(
                f"channels={list(self.channels)} with groups={self.groups}",
                "one level or more, whose channels are multiples of groups",
                "correct network.channels or network.groups",
            )
        return self

    @property
    def factor(self) -> int:
        """f: side of an image over side of its latents."""
        return 1 << (len(self.channels) - 1)

    def latent_shape(self, image: tuple[int, ...] | None) -> tuple[int, int, int]:
        """[c, H / f, W / f] of images [C, H, W].

        Raises:
            ConfigError: no images, or sides that are no multiples of f.
        """
        if image is None or len(image) != 3 or image[1] % self.factor or image[2] % self.factor:
            raise ConfigError(
                f"samples of shape {list(image or ())} for an autoencoder of {len(self.channels)} levels",
                f"images [C, H, W] whose sides are multiples of {self.factor}",
                "set data.size and data.resize=true, or give the autoencoder's network.channels fewer levels",
            )
        return self.latent, image[1] // self.factor, image[2] // self.factor


def to_diffusers(config: KlAutoencoderConfig, image: tuple[int, ...], scaling_factor: float = 1.0) -> dict[str, Any]:
    """Settings of AutoencoderKL for images [C, H, W]."""
    levels = len(config.channels)
    return {
        "in_channels": image[0],
        "out_channels": image[0],
        "sample_size": image[1],
        "down_block_types": [DOWN] * levels,
        "up_block_types": [UP] * levels,
        "act_fn": "silu",
        "scaling_factor": scaling_factor,
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        "block_out_channels": list(config.channels),
    }


def from_diffusers(told: Mapping[str, Any]) -> tuple[KlAutoencoderConfig, tuple[int, int, int], float]:
    """Sizes, shape of images [C, R, R], and scaling factor of a config.json; what it does not tell is as theirs.

    Raises:
        CheckpointError: another class, or settings that are not known here.
    """
    if told.get("_class_name") != CLASS:
        raise _unfit(f"a model of the class {told.get('_class_name')}")
    values: dict[str, Any] = {**UNTOLD, **told}
    strange = next((key for key, known in ABSENT.items() if values.get(key, known) != known), None)
    if strange is not None:
        raise _unfit(f"{strange}={values[strange]}")
    blocks = [(DOWN, kind) for kind in values.get("down_block_types", [DOWN])]
    blocks += [(UP, kind) for kind in values.get("up_block_types", [UP])]
    other = next((kind for known, kind in blocks if kind != known), None)
    if other is not None:
        raise _unfit(f"blocks {other}")
    if values["in_channels"] != values["out_channels"]:
        raise _unfit(f"{values['in_channels']} channels in and {values['out_channels']} out")
    layers = {"channels": (64,), "layers": 1}  # theirs, where a file leaves them out
    named = {ours: values[theirs] for ours, theirs in NAMES.items() if values.get(theirs) is not None}
    try:
        config = KlAutoencoderConfig.model_validate(layers | named)
        side, channels = int(values["sample_size"]), int(values["in_channels"])
        return config, (channels, side, side), float(values["scaling_factor"] or 1.0)
    except (ValidationError, TypeError, ValueError) as error:
        raise _unfit("settings that cannot be") from error


def _unfit(problem: str) -> CheckpointError:
    return CheckpointError(
        f"an autoencoder that is not known here: {problem}",
        f"diffusers' {CLASS} of blocks {DOWN} and {UP}, without shifts of its latents",
        "give the vae of another model",
    )
