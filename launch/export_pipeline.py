"""`generative export --layout diffusers`: text-to-image models as diffusers reads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.errors import ConfigError
from generative.hub.card import Card
from generative.hub.parts import Part, write_part
from generative.hub.pipeline_folder import Pipeline, teacher_folder
from generative.hub.tensors import SavedTensor, Source
from generative.method import average_name
from generative.methods.f_distill.denoiser import NEAR
from generative.methods.f_distill.latent_config import LatentUNetConfig
from generative.methods.kl_vae.config import KlVaeConfig
from generative.methods.kl_vae.convert import to_folder
from generative.methods.text_to_image.config import TextToImageConfig
from generative.training.networks import checkpoint_weights
from launch.autoencoders import scale_of

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
            "a distilled Stable Diffusion (method.network={name: stable_diffusion}), or a run of text_to_image, kl_vae",
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


def kl_vae_scale(subject: Subject) -> float:
    """What latents of an autoencoder are to be multiplied by; errors as `launch.autoencoders.scale_of`."""
    average = "trained" if subject.average is None else f"ema={average_name(subject.average)}"
    return scale_of(subject.config.method, subject.checkpoint.path, average)


def has_components(subject: Subject) -> bool:
    """Whether it is written by `export_components`."""
    return isinstance(subject.config.method, TextToImageConfig | KlVaeConfig)


def export_components(subject: Subject, target: Path, say: Callable[[str, str], None]) -> list[Path]:
    """Write U-Net, text encoder and tokenizer of a text-to-image model of pixels, for `generative erase`; or an
    autoencoder.

    Raises:
        CheckpointError, ResourceError: nothing is left.
    """
    from generative.hub.pixel_pipeline import write_pipeline

    method = subject.config.method
    state = checkpoint_weights(subject.checkpoint, subject.network, subject.average)
    if isinstance(method, KlVaeConfig):
        image = tuple(subject.facts.sample_shape or ())
        written = write_part(target, Part(to_folder(method, image, kl_vae_scale(subject)), state))
    else:
        assert isinstance(method, TextToImageConfig)
        written = write_pipeline(target, method, subject.facts, state)
    say("export", f"{subject.worn} weights of step {subject.checkpoint.step} as {', '.join(p.name for p in written)}")
    return written
