"""The sections `evaluate` and `sample` of a run that makes images, or points in the plane."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.data.config import AbsolutePath


def _known(weights: str) -> str:
    if weights in AT_END or weights.startswith(("ema=", "power=")):
        return weights
    raise combination(
        f"weights={weights}", "ema, trained, ema=RATE or power=WIDTH", "give one of these, say weights=power=0.15"
    )


AT_END = ("ema", "trained")
"""Weights that there are while a run trains."""

Weights = Annotated[str, AfterValidator(_known)]


class ImageEvaluation(Config):
    """Samples against real images; of known mixtures (ring, grid, stacked digits) also the modes that are reached."""

    at_end: bool = True
    """Evaluate when training is complete."""
    every_steps: PositiveInt | None = None
    """Measure FID, precision and recall of all averages at checkpoints of steps divisible by this, beside the training,
    and keep the best by FID in RUN/best; null: only at the end."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of whoever measures them (launch.backend=ray), beside those of the workers."""
    samples: PositiveInt = 5000
    """Samples that are drawn."""
    reference: Literal["train", "validation"] = "train"
    """Which real images they are compared with."""
    reference_samples: PositiveInt = 50_000
    """Most real images, taken evenly over all."""
    extractor: Literal["small", "inception", "transformers", "pixels"] = "small"
    """Whose features are compared. small: a classifier trained on the spot; inception: the network of published FIDs;
    transformers: a vision backbone (DINOv2, CLIP); pixels: none."""
    extractor_weights: str | None = None
    """inception: a file, or hub:OWNER/NAME/FILE; transformers: a folder, or hub:OWNER/NAME."""
    extractor_revision: str | None = None
    """Commit, tag or branch on the hub."""
    metrics: tuple[str, ...] | None = None
    """fid, kid, inception_score, improved, prdc, prd, i_variance; null: all that the extractor allows."""
    neighbours: PositiveInt = 5
    """k of precision, recall, density and coverage."""
    features: PositiveInt = 5000
    """Most samples, and real images, whose features are compared one by one (all metrics but FID and IS)."""
    batch_size: PositiveInt = 250
    """Samples drawn and scored together; does not change results."""
    weights: Weights = "ema"
    """Which weights are evaluated; ema takes the first average, where there is one. Of a run that is there also one by
    name, ema=0.999, or power=0.15: of any width, made of its power-function averages (method.ema_power)."""

    @model_validator(mode="after")
    def _weights_for_published(self) -> ImageEvaluation:
        if self.extractor in ("inception", "transformers") and self.extractor_weights is None:
            raise combination(
                f"extractor={self.extractor} without extractor_weights",
                "a file, a folder, or hub:OWNER/NAME (inception: and /FILE)",
                "set evaluate.extractor_weights, or evaluate.extractor=small, which needs none",
            )
        return self


class ImageSampling(Config):
    """Samples drawn from the model, as pictures."""

    at_end: bool = True
    """Draw samples when training is complete."""
    count: PositiveInt = 64
    """Number of samples in the grid."""
    columns: PositiveInt | None = None
    """Samples in a row; null: as many as there are rows."""
    neighbours: int = Field(default=10, ge=0)
    """Samples that are shown above their nearest training images; 0 for none."""
    monitor: int = Field(default=1000, ge=0)
    """Samples that are watched for copies and lost modes each time; 0 for none."""
    seed: int = 0
    """Seed of the samples' noise."""
    prompts: AbsolutePath | None = None
    """File of prompts (as data.captions) to draw for, of a text-to-image model; null: held-out captions."""
    labels: Annotated[tuple[int | str, ...], Field(min_length=1)] | None = None
    """Classes to draw, by number or name, dealt out in turn, of a model that is told classes; null: any."""
    weights: Weights = "ema"
    """Which weights are sampled; as evaluate.weights."""
