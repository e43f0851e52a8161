"""Configuration of KL autoencoders."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.nets.kl_autoencoder_config import KlAutoencoderConfig


class KlVaeConfig(Config):
    """A variational autoencoder of images with a small weight of the KL term: the first stage of latent diffusion."""

    name: Literal["kl_vae"] = "kl_vae"
    """Picks this method."""
    network: KlAutoencoderConfig = KlAutoencoderConfig()
    reconstruction: Literal["absolute", "squared"] = "absolute"
    """What is summed over pixels: |x(z) - x| or its square."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Of the KL term, in nats of an image, beside that sum over its pixels. With squared errors and 2 s^2 the loss is
    the evidence bound of a decoder whose pixels have standard deviation s."""
    scaling_factor: float | None = Field(default=None, gt=0)
    """What latents are multiplied by where they are modelled; null: 1 / their standard deviation, measured on training
    images when it is needed."""
    ema: list[float] = [0.999]
    """Decay rates of the averages of the network, each in (0, 1)."""
    ema_ramp: float | None = Field(default=0.05, gt=0)
    """An average's half-life is at most this part of the steps so far; null: the same from the start."""
    init_from: str | None = None
    """Start the network from a run folder, checkpoint, export or imported model."""

    @model_validator(mode="after")
    def _consistent(self) -> KlVaeConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        return self
