"""`generative export --layout diffusers`: a text-to-image student as a pipeline of diffusers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.errors import ConfigError
from generative.hub.card import Card
from generative.hub.pipeline_folder import Pipeline, teacher_folder
from generative.hub.tensors import SavedTensor, Source
from generative.methods.f_distill.denoiser import NEAR
from generative.methods.f_distill.latent_config import LatentUNetConfig

if TYPE_CHECKING:
    from launch.export import Subject

UNLIKE = {
    "song": "skips scaled by sqrt(1/2), sines before cosines, scaled labels, interleaved attention",
    "mlp": "fully connected layers",
}
"""What diffusers' UNet2DModel has not, by the network's name."""


def check_expressible(subject: Subject) -> LatentUNetConfig:
    """The network, where diffusers can express it and its sampler.

    Raises:
        ConfigError: it cannot.
    """
    settings: Any = subject.config.method
    network = getattr(settings, "network", None)
    if not isinstance(network, LatentUNetConfig):
        name = getattr(network, "name", subject.config.method.name)
        unlike = (
            f"UNet2DModel cannot express it: {UNLIKE[name]}" if name in UNLIKE else "it is not mapped to UNet2DModel"
        )
        raise ConfigError(
            f"--layout diffusers: a network {name}; {unlike}",
            "a distilled Stable Diffusion (method.network={name: stable_diffusion})",
            "leave out --layout: the folder then has safetensors and is read by generative.hub.loading.load_exported",
        )
    if subject.network != "student":
        raise ConfigError(f"--layout diffusers with --network {subject.network}", "the student", "leave out --network")
    method: Any = subject.method
    last = method.parts.noise_levels[-1]
    if settings.steps.levels or abs(math.log(settings.student_sigma / last)) > NEAR:
        levels = [settings.student_sigma, *settings.steps.levels]
        raise ConfigError(
            f"--layout diffusers: a student that is called at noise {levels}",
            f"one call at the last noise of the schedule, {last:.6g}: no sampler of diffusers adds noise again to what "
            "a student gave",
            "leave out --layout: the folder then has safetensors and is read by generative.hub.loading.load_exported",
        )
    return network


def export_pipeline(
    subject: Subject,
    source: Source,
    tensors: list[SavedTensor],
    card: Card,
    target: Path,
    on_bytes: Callable[[int], None],
) -> list[Path]:
    """Write it; errors as `check_expressible` and `Pipeline.write`."""
    network = check_expressible(subject)
    assert network.unet is not None
    assert network.schedule is not None
    teacher = teacher_folder(subject.config.method.teacher, network.revision)
    return Pipeline(source, tensors, network.unet, network.schedule, teacher, card).write(target, on_bytes)
