"""Stable Diffusion 1.5 and 2.1 as teachers, through diffusers: latents, precomputed text embeddings, eps or v.

Shapes: latents [B, C, R, R], text embeddings [B, L, D].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from generative.data.captioned_models import Published, embedded
from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap
from generative.methods.f_distill.latent_config import LatentUNetConfig
from generative.methods.f_distill.latent_denoiser import Schedule
from generative.methods.f_distill.stable_diffusion_files import (
    StableDiffusionConfig,
    build,
    load,
    read_settings,
    schedule_of,
    shapes_only,
)
from generative.operations import Operations

__all__ = ["StableDiffusionConfig", "configured_parts", "stable_diffusion_parts", "told_by_pipeline"]


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
    settings, noise = read_settings(config)
    schedule = schedule_of(noise, config.source)
    side = config.side or settings["sample_size"]
    pretrained = partial(load, config, settings, noise, schedule)
    return _parts(settings, schedule, side, (empty.shape[0], empty.shape[1]), lambda: empty, pretrained)


def configured_parts(config: FDistillConfig, network: LatentUNetConfig, facts: DataFacts) -> DenoiserParts:
    """The same of a configuration that tells all of the network (`generative train` reads it from the pipeline).

    Raises:
        ConfigError: settings that are missing, a model of another kind, data of another shape.
        ResourceError: diffusers is not installed.
    """
    if network.unet is None or network.schedule is None:
        raise ConfigError(
            "method.network.unet and method.network.schedule are not given, and there is no teacher to read them from",
            "a text-to-image model to distil",
            "set method.teacher to the folder of a pipeline of diffusers, or to its name on the hub",
        )
    side = network.side or network.unet.get("sample_size")
    if not isinstance(side, int):
        raise ConfigError(f"latents of side {side}", "a number", "set method.network.side")
    schedule = schedule_of(network.schedule, config.teacher or "method.network.schedule")
    text = _text_shape(network)
    pretrained: Callable[[], nn.Module] | None = None
    empty: Callable[[], Tensor] = partial(torch.zeros, *text)
    if config.teacher is not None:
        model = StableDiffusionConfig(source=config.teacher, revision=network.revision, variant=network.variant)
        pretrained = partial(load, model, network.unet, network.schedule, schedule)
        empty = partial(_empty, model.published, text)
    found = _parts(network.unet, schedule, side, text, empty, pretrained)
    _check_data(found, facts)
    return found


def _text_shape(network: LatentUNetConfig) -> tuple[int, int]:
    assert network.unet is not None
    width = network.unet.get("cross_attention_dim", 1280)  # the default of diffusers
    if not isinstance(width, int):
        raise ConfigError(
            f"a U-Net with cross_attention_dim={width}", "one width of texts for all blocks", "take another teacher"
        )
    return network.tokens or 77, width


def _empty(model: Published, shape: tuple[int, int]) -> Tensor:
    """Embedding of the empty prompt; for plans zeros in its place."""
    return torch.zeros(*shape) if shapes_only() else embedded(model, ("",))[0].float()


def _check_data(parts: DenoiserParts, facts: DataFacts) -> None:
    """Refuse latents or texts of another shape. Raises ConfigError."""
    theirs, texts = facts.sample_shape, facts.text_shape
    if theirs is not None and tuple(theirs) != parts.shape:
        raise ConfigError(
            f"a teacher of latents of shape {[*parts.shape]}, and data of shape {[*theirs]}",
            "one shape for teacher, student and data",
            "correct data.size (8 times the side of Stable Diffusion's latents) or method.network.side",
        )
    if texts is not None and tuple(texts) != parts.text_shape:
        raise ConfigError(
            f"a teacher that is told texts of shape {[*(parts.text_shape or ())]}, and data with {[*texts]}",
            "texts of the teacher's own text encoder",
            "leave out data.model: it is method.teacher",
        )


def told_by_pipeline(teacher: str, network: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline tells of a distillation, as settings of its section `method`.

    Args:
        teacher: folder, or name on the hub.
        network: what is given of `LatentUNetConfig`.

    Raises:
        CheckpointError, ConfigError, ResourceError: no such model, or one of another kind.
    """
    given = LatentUNetConfig.model_validate(dict(network))
    model = StableDiffusionConfig(source=teacher, revision=given.revision, variant=given.variant)
    model.published.check()
    unet, noise = read_settings(model)
    encoder = model.published.part(_clip_config, "text_encoder")
    levels = schedule_of(noise, teacher).levels
    side = given.side or unet.get("sample_size")
    told = {"unet": unet, "schedule": noise, "tokens": encoder.max_position_embeddings, "side": side}
    return {
        "network": {**given.model_dump(mode="json"), **told},
        "shape": [unet["in_channels"], side, side] if side else None,
        "classes": 0,
        "augment_labels": 0,
        "time": {"sigma_min": float(levels[0]), "sigma_max": float(levels[-1]), "size": len(levels)},
        "student_sigma": float(levels[-1]),
    }


def _clip_config(*args: Any, **more: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig.from_pretrained(*args, **more)


def _parts(
    settings: Mapping[str, Any],
    schedule: Schedule,
    side: int,
    text: tuple[int, int],
    empty: Callable[[], Tensor],
    pretrained: Callable[[], nn.Module] | None,
) -> DenoiserParts:
    shape = (int(settings.get("in_channels", 4)), side, side)
    return DenoiserParts(
        partial(build, settings, schedule),
        shape,
        0,
        *_counted(json.dumps(settings, sort_keys=True), shape, text),
        text_shape=text,
        empty=empty,
        noise_levels=tuple(schedule.levels.tolist()),
        pretrained=pretrained,
    )


@lru_cache(maxsize=8)
def _counted(
    settings: str, shape: tuple[int, int, int], text: tuple[int, int]
) -> tuple[tuple[FeatureMap, ...], int, int]:
    """Feature maps, and multiply-adds of the network and of its encoder, of the U-Net that JSON describes.

    Kept, since a run asks several times (check, plan, each worker's method), and a large U-Net takes a second.
    """
    no_noise = Schedule(torch.ones(1, dtype=torch.float64), velocity=False)
    with torch.device("meta"):
        net, x = build(json.loads(settings), no_noise), torch.empty(1, *shape)
        maps = range(len(net.unet.down_blocks) + 1)
        inputs = (x, torch.ones(1), torch.empty(1, *text))
        with Operations() as encoder, torch.no_grad():
            found = net(*inputs, features=maps, encoder_only=True)
        with Operations() as whole, torch.no_grad():
            net(*inputs)
    sizes = tuple(FeatureMap(each.shape[1], each.shape[2]) for each in found)
    return sizes, whole.total // 2, encoder.total // 2
