"""Configuration of EDM: diffusion models with preconditioned denoisers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.nets.edm_config import NetworkConfig, SongConfig
from generative.nets.kl_autoencoder_config import KlAutoencoderConfig

AUTOENCODER = "autoencoder"
"""Name of the network, here and in the method kl_vae."""
AUGMENT_LABELS = 9
"""What a network is told of the augmentation of an image."""


class AugmentationConfig(Config):
    """Geometric augmentation of which the network is told, so that samples show none of it (appendix F.2)."""

    probability: float = Field(default=0.0, ge=0, le=1)
    """Of each transform but the mirror, which has one half; 0: images stay as they are."""
    labels: bool | None = None
    """Whether the network has inputs for it; null: if the probability is not 0. A published network that has them can
    be trained on without augmentation."""


class LatentsConfig(Config):
    """Latents of a trained autoencoder (method kl_vae) in the place of pixels."""

    autoencoder: str | None
    """Run, checkpoint or export of the method kl_vae; the run keeps a copy of it."""
    autoencoder_config: str | None = None
    """Configuration that trains it where it is not there yet, and tells its sizes until then."""
    weights: str = "ema"
    """Of a run: ema, ema=0.999 or trained."""
    network: KlAutoencoderConfig | None = None
    """Its sizes, as it tells them itself."""
    scaling_factor: float | None = Field(default=None, gt=0)
    """What latents are multiplied by; null: as the autoencoder tells, or 1 / their standard deviation."""

    @property
    def source(self) -> str | None:
        """Where its weights are: "runs/kl_vae/quickstart#autoencoder@0.998"."""
        average = self.weights.partition("=")[2]
        return self.autoencoder and f"{self.autoencoder}#{AUTOENCODER}" + (f"@{average}" if average else "")


class EdmConfig(Config):
    """A diffusion model of images with EDM's preconditioning, loss and samplers (arXiv 2206.00364)."""

    name: Literal["edm"] = "edm"
    """Picks this method."""
    network: NetworkConfig = SongConfig()
    sigma_data: float = Field(default=0.5, gt=0)
    """Standard deviation of the data's pixels."""
    noise_mean: float = -1.2
    """P_mean: mean of ln sigma in training."""
    noise_std: float = Field(default=1.2, gt=0)
    """P_std: standard deviation of ln sigma in training."""
    classes: int | None = Field(default=None, ge=0)
    """Classes that the network is told; null: as many as the data have; 0: it is told none."""
    label_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the training images whose class is not told, for guidance."""
    augmentation: AugmentationConfig = AugmentationConfig()
    latents: LatentsConfig | None = None
    """An autoencoder whose latents are modelled; null: pixels are. Scaled latents have sigma_data=1."""
    sampling: EdmSamplingConfig = EdmSamplingConfig()
    ema: list[float] = [0.999]
    """Decay rates of the averages of the network, each in (0, 1)."""
    ema_power: list[float] = []
    """Relative widths of power-function averages that are kept too, each in (0, 0.28]; with [0.05, 0.1] and checkpoints
    that stay (train.checkpoint.keep_every), averages of other widths can be made afterwards."""
    ema_ramp: float | None = Field(default=0.05, gt=0)
    """An average's half-life is at most this part of the steps so far; null: the same from the start."""
    init_from: str | None = None
    """Start the network from a run folder, checkpoint or imported model."""

    @property
    def augment_labels(self) -> int:
        """Inputs of the network for augmentation."""
        labels = self.augmentation.labels
        return AUGMENT_LABELS if (self.augmentation.probability > 0 if labels is None else labels) else 0

    @model_validator(mode="after")
    def _consistent(self) -> EdmConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        if not all(0.0 < width <= 0.28 for width in self.ema_power) or len(set(self.ema_power)) < len(self.ema_power):
            raise combination(
                f"ema_power={self.ema_power}", "different widths above 0 and at most 0.28", "correct method.ema_power"
            )
        if self.sampling.guidance != 1 and not self.label_dropout:
            raise combination(
                f"sampling.guidance={self.sampling.guidance} with label_dropout=0, so that the network knows no image "
                "without a class",
                "guidance=1, or training with method.label_dropout=0.1 (for example)",
                "set method.sampling.guidance=1",
            )
        if self.augmentation.probability and not self.augment_labels:
            raise combination(
                f"augmentation.probability={self.augmentation.probability} with augmentation.labels=false",
                "a network that is told of it: else samples are augmented too",
                "leave out method.augmentation.labels",
            )
        return self
