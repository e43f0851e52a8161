"""What a pipeline's files say of a text-to-image model: settings of its U-Net and of its noise, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from generative.config import Config
from generative.data.captioned_models import Published
from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.methods.f_distill.latent_denoiser import LatentDenoiser, Schedule

SCHEDULE = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type"),
    "rescale_betas_zero_snr",
)
"""Settings of a scheduler that the noise of training depends on."""

Settings = dict[str, Any]


class StableDiffusionConfig(Config):
    """A published text-to-image model in diffusers' layout; weights are read from safetensors only."""

    source: str
    """Local folder, or repository on the hub, with `unet` and `scheduler`."""
    revision: str | None = None
    """Of a repository: branch, tag or commit."""
    variant: str | None = None
    """Of the weights' files, such as fp16."""
    side: int | None = None
    """Of the latents, an eighth of the image's; null: that which the model was trained on."""

    @property
    def published(self) -> Published:
        """Where it is."""
        return Published(self.source, self.revision)


def diffusers() -> Any:
    """The library. Raises ResourceError where it is not installed."""
    try:
        import diffusers as library
        from diffusers import UNet2DConditionModel  # noqa: F401  (loaded lazily: this is what may be missing)
    except ImportError as error:
        raise ResourceError(
            "Stable Diffusion as a teacher needs the package diffusers, which is not installed",
            "an installation with diffusers",
            "pip install diffusers",
        ) from error
    return library


def read_settings(config: StableDiffusionConfig) -> tuple[Settings, Settings]:
    """Settings of the U-Net, and those of the noise.

    Raises:
        ResourceError: diffusers is not installed.
        CheckpointError: no such model.
    """
    library = diffusers()
    unet = config.published.part(library.UNet2DConditionModel.load_config, "unet")
    found = config.published.part(library.DDIMScheduler.load_config, "scheduler")
    plain = {key: _plain(value) for key, value in unet.items() if not key.startswith("_")}
    return plain, {key: _plain(found[key]) for key in SCHEDULE if key in found}


def _plain(value: Any) -> Any:
    """As YAML keeps it."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def schedule_of(settings: Mapping[str, Any], source: str) -> Schedule:
    """The discrete diffusion of a model.

    Raises:
        ConfigError: it predicts something else than noise or velocity, or ends at pure noise.
    """
    scheduler = diffusers().DDIMScheduler.from_config(dict(settings))
    told = scheduler.config.prediction_type
    if told not in ("epsilon", "v_prediction"):
        raise ConfigError(f"{source} predicts {told!r}", "epsilon or v_prediction", "take another teacher")
    squares = scheduler.alphas_cumprod.double()
    if not float(squares[-1]) > 0:
        raise ConfigError(
            f"{source} ends at pure noise (zero terminal signal-to-noise ratio), from which there is no x0",
            "a schedule with some signal at its last step",
            "take a model trained without rescale_betas_zero_snr",
        )
    return Schedule(squares, told == "v_prediction")


def build(settings: Mapping[str, Any], schedule: Schedule) -> LatentDenoiser:
    """A network of random weights."""
    return LatentDenoiser(diffusers().UNet2DConditionModel.from_config(dict(settings)), schedule)


def shapes_only() -> bool:
    """Whether a plan is made: on the meta device, or with fake tensors."""
    from torch._guards import detect_fake_mode

    return torch.get_default_device().type == "meta" or detect_fake_mode() is not None


def load(config: StableDiffusionConfig, settings: Settings, noise: Settings, schedule: Schedule) -> LatentDenoiser:
    """The published network; where only names and shapes are asked for, one without its weights.

    Raises:
        CheckpointError: no such model, no safetensors in it, or other settings than those given.
    """
    if shapes_only():
        return build(settings, schedule)
    for name, given, found in zip(("unet", "schedule"), (settings, noise), read_settings(config), strict=True):
        differing = sorted(key for key in given if key in found and found[key] != given[key])
        if differing:
            key = differing[0]
            raise CheckpointError(
                f"{config.source} has {key}={found[key]!r}, but method.network.{name} says {given[key]!r}",
                "one network for teacher and student",
                f"leave out method.network.{name}: it is read from the teacher",
            )
    unet = config.published.part(
        diffusers().UNet2DConditionModel.from_pretrained,
        "unet",
        variant=config.variant,
        use_safetensors=True,
        torch_dtype=torch.float32,
    )
    return LatentDenoiser(unet, schedule)
