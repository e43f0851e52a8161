"""Stable Diffusion 1.5 and 2.1 as teachers, through diffusers: latents, precomputed text embeddings, eps or v.

Shapes: latents [B, C, R, R], text embeddings [B, L, D].
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from generative.config import Config
from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap
from generative.methods.f_distill.latent_denoiser import LatentDenoiser, Schedule


class StableDiffusionConfig(Config):
    """A published text-to-image model in diffusers' layout; weights are read from safetensors only."""

    source: str
    """Local folder, or repository on the hub, with `unet` and `scheduler`."""
    revision: str | None = None
    """Of a repository: branch, tag or commit."""
    variant: str | None = None
    """Of the weights' files, such as fp16."""
    side: PositiveInt | None = None
    """Of the latents, an eighth of the image's; null: that which the model was trained on."""


def stable_diffusion_parts(config: StableDiffusionConfig, empty: Tensor) -> DenoiserParts:
    """What the method needs of a published model: `FDistill(settings, stable_diffusion_parts(...))`.

    Batches hold sample float[B, C, R, R], latents times the model's scaling factor, and text float[B, L, D]. Settings:
    `student_sigma` the last of the levels that this returns (14.61 for 1.5), `time.first` and `time.last` as indices
    of its steps, `fake_weight: eps` for DMD2's loss of the fake score.

    Args:
        config: which model.
        empty: float[L, D], embedding of the empty prompt, for guidance.

    Raises:
        ResourceError: diffusers is not installed.
        CheckpointError: no such model, or no safetensors in it.
        ConfigError: a model of another kind.
    """
    settings, schedule = _read(config)
    build = partial(_build, settings, schedule)
    side = config.side or settings["sample_size"]
    shape = (int(settings["in_channels"]), side, side)
    with torch.device("meta"):
        net, x = build(), torch.empty(1, *shape)
        maps = range(len(settings["block_out_channels"]) + 1)
        inputs = (x, torch.ones(1), torch.empty(1, *empty.shape))
        with FlopCounterMode(display=False) as encoder, torch.no_grad():
            found = net(*inputs, features=maps, encoder_only=True)
        with FlopCounterMode(display=False) as whole, torch.no_grad():
            net(*inputs)
    return DenoiserParts(
        build,
        shape,
        0,
        [FeatureMap(each.shape[1], each.shape[2]) for each in found],
        whole.get_total_flops() // 2,
        encoder.get_total_flops() // 2,
        empty=empty,
        noise_levels=tuple(schedule.levels.tolist()),
        pretrained=partial(_load, config, settings, schedule),
    )


def _read(config: StableDiffusionConfig) -> tuple[dict[str, Any], Schedule]:
    """Settings of the U-Net, and the schedule."""
    try:
        from diffusers import DDIMScheduler, UNet2DConditionModel
    except ImportError as error:
        raise ResourceError(
            "Stable Diffusion as a teacher needs the package diffusers, which is not installed",
            "an installation with diffusers",
            "pip install diffusers",
        ) from error
    where = {"revision": config.revision}
    try:
        settings = UNet2DConditionModel.load_config(config.source, subfolder="unet", **where)
        scheduler = DDIMScheduler.from_pretrained(config.source, subfolder="scheduler", **where)
    except (OSError, ValueError) as error:
        raise _missing(config, error) from error
    told = scheduler.config.prediction_type
    if told not in ("epsilon", "v_prediction"):
        raise ConfigError(f"{config.source} predicts {told!r}", "epsilon or v_prediction", "take another teacher")
    squares = scheduler.alphas_cumprod.double()
    if not float(squares[-1]) > 0:
        raise ConfigError(
            f"{config.source} ends at pure noise (zero terminal signal-to-noise ratio), from which there is no x0",
            "a schedule with some signal at its last step",
            "take a model trained without rescale_betas_zero_snr",
        )
    return dict(settings), Schedule(squares, told == "v_prediction")


def _build(settings: Mapping[str, Any], schedule: Schedule) -> LatentDenoiser:
    """A network of random weights."""
    from diffusers import UNet2DConditionModel

    return LatentDenoiser(UNet2DConditionModel.from_config(dict(settings)), schedule)


def _load(config: StableDiffusionConfig, settings: Mapping[str, Any], schedule: Schedule) -> LatentDenoiser:
    """The published network; where only names and shapes are asked for, on the meta device, one without weights."""
    from diffusers import UNet2DConditionModel

    if torch.get_default_device().type == "meta":
        return _build(settings, schedule)
    try:
        unet = UNet2DConditionModel.from_pretrained(
            config.source,
            subfolder="unet",
            revision=config.revision,
            variant=config.variant,
            use_safetensors=True,
            torch_dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise _missing(config, error) from error
    return LatentDenoiser(unet, schedule)


def _missing(config: StableDiffusionConfig, error: Exception) -> CheckpointError:
    first = str(error).strip().split("\n")[0][:200]
    return CheckpointError(
        f"no model could be read from {config.source!r}: {first}",
        "a folder or repository with unet (config.json, safetensors) and scheduler, as diffusers writes it",
        "correct source, revision or variant; save weights that are pickled again with safetensors",
    )
