"""The section `method.network` of a text-to-image model. Free of torch, so that configurations load quickly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from generative.config import Config
from generative.nets.edm_config import DhariwalConfig, MlpConfig, SongConfig


class LatentUNetConfig(Config):
    """The U-Net of Stable Diffusion 1.x or 2.x in diffusers' layout: method.teacher is a pipeline's folder or name."""

    name: Literal["stable_diffusion"] = "stable_diffusion"
    """Picks this network."""
    unet: dict[str, Any] | None = None
    """Settings of diffusers' UNet2DConditionModel; null: read from the pipeline, as are the three below."""
    schedule: dict[str, Any] | None = None
    """Settings of its noise: num_train_timesteps, beta_start, beta_end, beta_schedule, prediction_type."""
    tokens: PositiveInt | None = None
    """Tokens of a text's embedding."""
    side: PositiveInt | None = None
    """Of the latents, an eighth of the image's; null: that which the model was trained on."""
    revision: str | None = None
    """Of a pipeline on the hub: branch, tag or commit."""
    variant: str | None = None
    """Of the weights' files, such as fp16."""


StudentConfig = Annotated[SongConfig | DhariwalConfig | MlpConfig | LatentUNetConfig, Field(discriminator="name")]
"""What can be distilled: EDM's networks, and Stable Diffusion's."""
