"""Configuration of GANs with manifold entropy estimation (MEE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from generative.config import Config, merged
from generative.config_messages import combination


class DcganConfig(Config):
    """DCGAN for any power-of-two size; the networks of the paper (CIFAR-10, CelebA)."""

    name: Literal["dcgan"] = "dcgan"
    width: PositiveInt = 128
    """Channels of the generator's last hidden layer; each layer before has twice as many."""
    discriminator_width: PositiveInt | None = None
    """Channels of the discriminator's first layer; null: `width`."""


class ResnetGanConfig(Config):
    """Residual networks for 32 x 32, 64 x 64 and larger powers of two."""

    name: Literal["resnet"] = "resnet"
    width: PositiveInt | None = None
    """Channels of the narrowest block; null: as published for the size."""


class MlpGanConfig(Config):
    """Fully connected networks, for points in the plane and images of a few pixels."""

    name: Literal["mlp"] = "mlp"
    generator: tuple[PositiveInt, ...] = (256, 256, 256)
    """Hidden widths of the generator, each with batch normalisation."""
    discriminator: tuple[PositiveInt, ...] = (128, 128, 128)
    """Hidden widths of the discriminator."""
    maxout: int = Field(default=0, ge=0)
    """Pieces of maxout units in the discriminator; 0: leaky ReLU."""
    bounded: bool = True
    """tanh at the end of the generator (images), or none (points)."""
    init_std: float | None = Field(default=None, gt=0)
    """Weights from N(0, init_std^2); null: torch's own."""


NetworkConfig = Annotated[DcganConfig | ResnetGanConfig | MlpGanConfig, Field(discriminator="name")]


class EntropyConfig(Config):
    """The nearest-neighbour entropy of codes (RB-MaEM, eq. 8 to 11)."""

    weight: float = Field(default=5e-4, ge=0)
    """sigma; or rho with `relative`. 0 leaves the term out."""
    relative: bool = False
    """Weight it so that its gradient on the codes is `weight` times that of the adversarial loss."""
    form: Literal["log_mean", "mean_log", "cosine"] = "log_mean"
    """log_mean: -log of the mean squared distance (released code); mean_log: -mean of the log (theory); cosine:
    similarity to the most similar code (eq. 8)."""
    norm_weight: float = Field(default=0.0, ge=0)
    """lambda: weight of the codes' norms (cosine)."""
    neighbour: PositiveInt = 1
    """Distance to the k-th nearest code."""
    of: Literal["generated", "real", "both"] = "both"
    """Whose entropy is raised: generated codes in the generator's loss, real codes in the discriminator's."""
    warmup_batches: int = Field(default=0, ge=0)
    """Batches of the discriminator over which the weight rises from 0."""
    warmup_every: PositiveInt = 1
    """Batches between rises of the weight (an epoch, in the released code)."""


class DlleConfig(Config):
    """Codes of augmented samples should be those of the samples (eq. 12, 13)."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of this term; 0 leaves it out."""
    form: Literal["code", "paper"] = "code"
    """code: squared error, augmented side detached; paper: 2-norm, nothing detached."""
    augmentation: Literal["flip", "noise"] = "flip"
    """flip: one random flip of the whole batch, with noise; noise: noise alone."""
    noise: float = Field(default=1e-3, ge=0)
    """Standard deviation of that noise."""


class IsoConfig(Config):
    """Codes of mixed images should be mixed codes (DIsoMap, eq. 14)."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of this term; 0 leaves it out."""
    form: Literal["code", "paper"] = "code"
    """code: squared error; paper: cosine similarity."""
    alpha: Literal["normal", "uniform"] = "normal"
    """Mixing weight of the real image: N(0, 1) (released code, extrapolates) or U(0, 1)."""
    noise: float = Field(default=0.05, ge=0)
    """Standard deviation of the noise on the mixed codes."""


class GanSamplingConfig(Config):
    """How samples are drawn from the trained generator."""

    statistics: Literal["standing", "running"] = "standing"
    """Batch normalisation: statistics of fresh samples under the weights at hand, or those kept in training."""
    standing_samples: PositiveInt = 10_000
    """Fresh samples for standing statistics."""


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "paper": {
        "dlle": {"form": "paper"},
        "iso": {"form": "paper", "alpha": "uniform", "noise": 0.0},
        "entropy": {"form": "cosine", "of": "generated"},
    },
    "released": {
        "buffer": "released",
        "separate_forwards": True,
        "unused_head": True,
        "sampling": {"statistics": "running"},
        "entropy": {"warmup_batches": 93_700, "warmup_every": 937},
    },
    "plugin": {
        "adversarial": "non_saturating",
        "r1": 1.0,
        "dlle": {"weight": 0.0},
        "iso": {"weight": 0.0},
        "spectral_norm": False,
        "reparameterised": False,
        "discriminator_updates": 1,
        "entropy": {"form": "mean_log", "of": "generated", "weight": 0.3},
    },
}
"""Choices where paper and released code differ; `released` has the warm-up of CIFAR-10 (100 epochs of 937 batches)."""


class MeeGanConfig(Config):
    """A GAN whose discriminator maps to codes, with the entropy of codes against mode collapse (arXiv 2208.12055)."""

    name: Literal["mee_gan"] = "mee_gan"
    """Picks this method."""
    preset: Literal["default", "paper", "released", "plugin"] = "default"
    """Values of the settings that are not given: default (the released code with a true buffer and one backward pass),
    paper (as printed), released (as published, with its shrinking buffer), plugin (a non-saturating GAN with R1 and the
    entropy of generated codes)."""
    network: NetworkConfig = DcganConfig()
    latent: PositiveInt = 64
    """Size of the generator's input."""
    code: PositiveInt = 16
    """Size m of the discriminator's codes; their mean is the realness."""
    reparameterised: bool = True
    """Codes are drawn around mu with a learned spread (as RealnessGAN has it)."""
    spectral_norm: bool = True
    """Spectral normalisation of the discriminator."""
    adversarial: Literal["wasserstein", "non_saturating", "hinge", "relativistic"] = "wasserstein"
    """Loss on the realness; wasserstein is the paper's (eq. 7)."""
    r1: float = Field(default=0.0, ge=0)
    """gamma of the penalty gamma/2 |grad D|^2 on real images."""
    r2: float = Field(default=0.0, ge=0)
    """The same on generated images."""
    entropy: EntropyConfig = EntropyConfig()
    dlle: DlleConfig = DlleConfig()
    iso: IsoConfig = IsoConfig()
    buffer: Literal["fifo", "released"] = "fifo"
    """Past codes that new ones are compared with: a queue, or the released code's, which shrinks to one batch."""
    buffer_size: PositiveInt = 1024
    """Codes in the buffer."""
    buffer_columns: PositiveInt = 64
    """The released buffer has a column for each sample of a batch: must be train.batch_size."""
    discriminator_updates: PositiveInt = 3
    """Updates of the discriminator for each of the generator, which follows the first of them."""
    separate_forwards: bool = False
    """One forward pass for each term, as in the released code, instead of two in all."""
    unused_head: bool = False
    """Keep the plain head beside the reparameterised one, as published checkpoints have it."""
    ema: list[float] = [0.999]
    """Decay rates of the averages of the generator, each in (0, 1)."""
    ema_ramp: float | None = Field(default=0.05, gt=0)
    """An average's half-life is at most this part of the steps so far; null: the same from the start."""
    sampling: GanSamplingConfig = GanSamplingConfig()
    init_from: str | None = None
    """Start both networks from a run folder or checkpoint."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Put the preset beneath what is given."""
        if not isinstance(values, Mapping) or values.get("preset") not in PRESETS:
            return values
        return merged(PRESETS[values["preset"]], values)

    @model_validator(mode="after")
    def _consistent(self) -> MeeGanConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        if self.entropy.neighbour > self.buffer_size:
            raise combination(
                f"entropy.neighbour={self.entropy.neighbour} is more than buffer_size={self.buffer_size}",
                "as many codes in the buffer as neighbours are counted",
                "lower method.entropy.neighbour, or raise method.buffer_size",
            )
        if self.buffer == "released" and (self.entropy.form != "log_mean" or self.entropy.neighbour > 1):
            raise combination(
                f"buffer=released with entropy.form={self.entropy.form} and entropy.neighbour={self.entropy.neighbour}",
                "entropy.form=log_mean and entropy.neighbour=1, as in the released code",
                "set method.buffer=fifo for other forms",
            )
        if self.separate_forwards and (self.r1 or self.r2):
            raise combination(
                "separate_forwards=true with a gradient penalty, which the released code does not have",
                "r1=0 and r2=0, or the fused form",
                "set method.separate_forwards=false",
            )
        if self.unused_head and not self.reparameterised:
            raise combination(
                "unused_head=true, but reparameterised=false uses the plain head",
                "unused_head=false",
                "set method.unused_head=false",
            )
        return self
