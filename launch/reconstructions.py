"""Methods that reconstruct (autoencoders): which images they are shown, in their samples and their figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from evaluation.estimate import Estimate
from generative.data.images import ImageData
from generative.errors import ConfigError
from launch.image_sections import ImageEvaluation

Originals = Callable[[Tensor], Tensor]
"""int64[B] -> images [B, C, H, W] as the data hold them: sample k reconstructs the k-th."""


def originals_of(method: Any, data: ImageData) -> Originals | None:
    """Held-out images in their order, again and again; None for a method that makes samples of noise alone."""
    if not getattr(method, "reconstructs", False):
        return None
    source = data.validation
    return lambda ids: source.fetch((ids % len(source)).numpy())["sample"]


def kind_of_samples(method: Any) -> str:
    """What a method's samples are, in a word for titles."""
    return "reconstructions" if getattr(method, "reconstructs", False) else "samples"


def check_originals(method: Any, data: ImageData, settings: ImageEvaluation, measured: bool) -> None:
    """Refuse reconstructions of images that are not there, and figures of other ones.

    Raises:
        ConfigError: nothing is held out; more samples than held-out images, or another reference, where it is measured.
    """
    if not getattr(method, "reconstructs", False):
        return
    count = len(data.validation)
    if not count:
        raise ConfigError(
            f"{data.description} holds nothing out that could be reconstructed",
            "held-out images",
            "set data.validation_fraction=0.1, or evaluate.at_end=false sample.at_end=false train.sample_every=null",
        )
    if measured and (settings.samples > count or settings.reference != "validation"):
        raise ConfigError(
            f"evaluate.samples={settings.samples} and evaluate.reference={settings.reference} of a method that "
            f"reconstructs the {count} held-out images",
            f"at most {count} samples, compared with these images",
            f"set evaluate.samples={count} evaluate.reference=validation",
        )


def psnr_figure(psnr: Tensor) -> Estimate:
    """Mean over images of dB float64[N], with its standard error."""
    error = float(psnr.std()) / len(psnr) ** 0.5 if len(psnr) > 1 else None
    return Estimate(float(psnr.mean()), error, len(psnr), "dB", "held-out images, mean of each's latents, range 2")
