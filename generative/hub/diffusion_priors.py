"""Pipelines of diffusers as priors of posterior samplers: DDPM and DDIM (pixels), latent diffusion, Stable Diffusion.

Weights come from safetensors only; networks are frozen. Shapes: z [B, c, h, w], images [B, C, H, W] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.hub.model_files import read_json
from generative.hub.parts import INDEX, SCHEDULER
from generative.methods.stsl.predictions import Kind
from generative.methods.stsl.prior import Map, Network, Prior, discrete_prior

AUTOENCODERS = {"AutoencoderKL": "vae", "VQModel": "vqvae"}
PREDICTIONS: tuple[Kind, ...] = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class _Autoencoder:
    """E and D with the scale of latents, the factor between sides, and the channels of images."""

    encode: Map
    decode: Map
    factor: int
    channels: int


def open_pipeline_prior(folder: Path, device: torch.device, prompt: str = "", label: int | None = None) -> Prior:
    """The prior that a pipeline's folder holds.

    Args:
        folder: as `save_pretrained` writes it, with safetensors.
        device: where it computes.
        prompt: of a text-to-image model; empty: no text.
        label: class, of a model that is told classes.

    Raises:
        CheckpointError: no pipeline, or one of parts that are not known here.
        ConfigError: a prediction that is not known; a class for a model without, or none for one with classes.
        ResourceError: diffusers (or transformers) is not installed.
    """
    unet, prior_of = open_unet(folder, device)
    told = _labels(unet, folder, label)
    if not hasattr(unet.config, "cross_attention_dim"):
        return prior_of(_plain(unet, told))
    return prior_of(with_text(unet, _text(folder, prompt, device)))


def open_unet(folder: Path, device: torch.device) -> tuple[Any, Callable[[Network], Prior]]:
    """The U-Net of a pipeline, and what makes a prior of a network that calls it; errors as `open_pipeline_prior`."""
    index = read_json(folder / INDEX)
    if index is None:
        raise CheckpointError(f"{folder} has no {INDEX}", "a pipeline of diffusers", "give the folder that holds it")
    library = _library("diffusers")
    unet_kind = _class_of(index, "unet")
    if unet_kind not in ("UNet2DModel", "UNet2DConditionModel"):
        raise CheckpointError(
            f"{folder}: a pipeline {index.get('_class_name')} whose unet is {unet_kind or 'missing'}",
            "DDPMPipeline, DDIMPipeline, LDMPipeline, LatentPipeline or StableDiffusionPipeline",
            "give another model",
        )
    unet = _part(getattr(library, unet_kind), folder, "unet", device)
    scheduler = _read(library.DDPMScheduler, folder, "scheduler", "scheduler_config.json")
    told = read_json(folder / "scheduler" / SCHEDULER) or {}
    if "beta_schedule" not in told and not told.get("trained_betas"):
        # the class below would take betas of its own for another's sigmas or flow, and say nothing
        raise ConfigError(
            f"{folder} has a scheduler {told.get('_class_name')}, which has no betas",
            "a variance-preserving path of discrete times, as of DDPMScheduler, DDIMScheduler or PNDMScheduler",
            "take another model",
        )
    kind: Kind = scheduler.config.prediction_type
    if kind not in PREDICTIONS:
        raise ConfigError(f"{folder} predicts {kind!r}", f"one of {', '.join(PREDICTIONS)}", "take another model")
    if not float(scheduler.alphas_cumprod[-1]) > 0:
        raise ConfigError(
            f"{folder} ends at pure noise (zero terminal signal-to-noise ratio), from which there is no clean image",
            "a schedule with some signal at its last step",
            "take a model trained without rescale_betas_zero_snr",
        )
    autoencoder = _autoencoder(library, index, folder, device)
    channels, side = int(unet.config.in_channels), unet.config.sample_size
    if not isinstance(side, int):
        raise CheckpointError(
            f"{folder / 'unet'}: sample_size={side} in its config.json", "the side of square samples", "write it there"
        )
    factor = autoencoder.factor if autoencoder else 1
    final: Literal["first", "one"] = "one" if told.get("set_alpha_to_one", True) else "first"
    alphas = scheduler.alphas_cumprod.double()
    return unet, lambda network: discrete_prior(
        network,
        alphas,
        (channels, side, side),
        kind,
        final,
        variance=int(unet.config.out_channels) == 2 * channels,
        image=(autoencoder.channels if autoencoder else channels, side * factor, side * factor),
        encode=autoencoder.encode if autoencoder else None,
        decode=autoencoder.decode if autoencoder else None,
        about=f"{folder.name}: {index.get('_class_name')}, {kind}",
    )


def _plain(unet: nn.Module, label: int | None) -> Network:
    def network(z: Tensor, times: Tensor) -> Tensor:
        told = () if label is None else (torch.full((len(z),), label, dtype=torch.long, device=z.device),)
        found: Tensor = unet(z.float(), times, *told).sample
        return found

    return network


def _labels(unet: Any, folder: Path, label: int | None) -> int | None:
    """The class that a network is told."""
    classes = int(getattr(unet.config, "num_class_embeds", None) or 0)
    if (label is None) != (not classes) or (label is not None and not 0 <= label < classes):
        raise ConfigError(
            f"{folder.name} {'knows no image without a class' if label is None else f'with --label {label}'}",
            f"--label 0 .. {classes - 1}" if classes else "no label",
            "correct --label" if label is not None else "give --label",
        )
    return label


def with_text(unet: nn.Module, text: Tensor) -> Network:
    """Embeddings [G, L, D] of G equal groups of rows, one after the other."""

    def network(z: Tensor, times: Tensor) -> Tensor:
        states = text.repeat_interleave(len(z) // len(text), 0)
        found: Tensor = unet(z.float(), times, encoder_hidden_states=states).sample
        return found

    return network


def _text(folder: Path, prompt: str, device: torch.device) -> Tensor:
    """Embedding of the prompt, float32[1, L, D]."""
    library = _library("transformers")
    if not (folder / "text_encoder").is_dir() or not (folder / "tokenizer").is_dir():
        raise CheckpointError(
            f"{folder} has no text_encoder and tokenizer", "a whole text-to-image pipeline", "fetch the missing parts"
        )
    tokenizer = library.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = _part(library.CLIPTextModel, folder, "text_encoder", device)
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    words = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        found: Tensor = encoder(words.to(device)).last_hidden_state
    return found.float()


def _autoencoder(library: Any, index: dict[str, Any], folder: Path, device: torch.device) -> _Autoencoder | None:
    """That of a latent model; None: pixels. A KL posterior is taken by its mean, so that encoding is deterministic."""
    named = next(((kind, part) for kind, part in AUTOENCODERS.items() if _class_of(index, part) == kind), None)
    if named is None:
        found = next((part for part in ("vae", "vqvae", "movq") if _class_of(index, part)), None)
        if found is None:
            return None
        raise CheckpointError(
            f"{folder}: an autoencoder {_class_of(index, found)} as {found}",
            " or ".join(f"{kind} as {part}" for kind, part in AUTOENCODERS.items()),
            "give another model",
        )
    kind, part = named
    net = _part(getattr(library, kind), folder, part, device)
    scale = float(net.config.scaling_factor or 1.0)

    def encode(x: Tensor) -> Tensor:
        told = net.encode(x.float())
        found: Tensor = told.latents if kind == "VQModel" else told.latent_dist.mean
        return found.to(x.dtype) * scale

    def decode(z: Tensor) -> Tensor:
        found: Tensor = net.decode((z / scale).float()).sample
        return found.to(z.dtype)

    factor = 2 ** (len(net.config.block_out_channels) - 1)
    return _Autoencoder(encode, decode, factor, int(net.config.out_channels))


def _class_of(index: dict[str, Any], part: str) -> str:
    told = index.get(part)
    return str(told[1]) if isinstance(told, list) and len(told) == 2 and told[1] else ""


def _part(kind: Any, folder: Path, part: str, device: torch.device) -> Any:
    wanted = "config.json and safetensors"
    net = _read(kind, folder, part, wanted, use_safetensors=True, torch_dtype=torch.float32)
    return net.to(device).eval().requires_grad_(False)


def _read(kind: Any, folder: Path, part: str, wanted: str, **options: Any) -> Any:
    """A part of a pipeline; raises CheckpointError."""
    try:
        return kind.from_pretrained(folder, subfolder=part, **options)
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        raise CheckpointError(
            f"{folder / part} cannot be read: {first}", wanted, "save the pipeline again by its save_pretrained"
        ) from error


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ResourceError(
            f"a pipeline of diffusers needs the package {name}, which is not installed",
            f"an installation with {name}",
            "pip install 'generative[erase]'",
        ) from error
