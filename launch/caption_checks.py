"""What can be wrong with a run on captions, found before it starts."""

from __future__ import annotations

from typing import Any

from generative.data.captioned_config import CaptionedConfig
from generative.data.captioned_models import side_factor
from generative.data.captioned_prepare import model_of
from generative.data.image_data import ImageData
from generative.errors import ConfigError
from launch.schema import RunConfig


def check_size(config: RunConfig) -> None:
    """Refuse images of another size than the teacher's latents stand for, before they are encoded. Raises ConfigError.

    Raises:
        CheckpointError: the model cannot be read.
    """
    shape = getattr(config.method, "shape", None)
    if not isinstance(config.data, CaptionedConfig) or shape is None or config.data.model is None:
        return
    wanted = shape[-1] * side_factor(model_of(config.data))
    if config.data.size != wanted:
        raise ConfigError(
            f"data.size={config.data.size} with a teacher of latents of shape {[*shape]}",
            f"data.size={wanted}, so that teacher, student and data have one shape",
            f"set data.size={wanted}, or method.network.side to distil it at another size",
        )


def check_captions(config: RunConfig, data: ImageData, method: Any) -> None:
    """Refuse captions alone where something looks at real images. Raises ConfigError."""
    if not isinstance(config.data, CaptionedConfig) or data.has_pictures:
        return
    steps = config.method.steps
    needs = {
        "a student that learns from noised real images (method.steps.input)": steps.levels
        and steps.input == "noised_data",
        "a discriminator, which compares with real images (method.divergence, method.gan_weight)": method.judged,
        "figures (evaluate.at_end, evaluate.every_steps)": config.evaluate.at_end or config.evaluate.every_steps,
        "nearest images or the watch over modes (sample.neighbours, sample.monitor)": config.sample.neighbours
        or config.sample.monitor,
    }
    found = [name for name, wanted in needs.items() if wanted]
    if found:
        raise ConfigError(
            f"data.images is not given, and the run has {found[0]}",
            "images for the captions, or a run that looks at none",
            "set data.images; without: method.divergence=rkl method.gan_weight=0 method.steps.input=simulated "
            "evaluate.at_end=false evaluate.every_steps=null sample.neighbours=0 sample.monitor=0",
        )
