"""Pipelines that draw, from wherever a model lies: folders, repositories on the hub, single files with a pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evaluation.erasure.prompts import STEPS
from generative.data.packages import needed
from generative.errors import CheckpointError
from generative.hub.model_files import read_json
from generative.hub.open_text_to_image import INDEX
from generative.hub.pixel_pipeline import PIPELINE, read_pipeline
from generative.hub.text_to_image import TextToImage
from generative.hub.whole_pipelines import drawing_folder

FP16 = ".fp16."


def open_pipe(model: TextToImage) -> Any:
    """A PixelPipeline or a pipeline of diffusers, on the GPU where there is one, with the model's own denoiser.

    A safety checker is left out: it blackens images, so that a detector would see nothing in them.

    Raises:
        CheckpointError: a file without a pipeline, or something that cannot be fetched or read.
        DataError: diffusers is not installed.
    """
    folder = drawing_folder(model)
    index = read_json(folder / INDEX) or {}
    if index.get("_class_name") == PIPELINE:
        small = read_pipeline(folder)
        return small if model.folder is not None else replace(small, unet=_denoiser(model, folder))
    diffusers = _diffusers()
    more: dict[str, Any] = {}
    if "safety_checker" in index:
        more |= {"safety_checker": None, "requires_safety_checker": False}
    if model.folder is None:
        more[model.part] = _denoiser(model, folder)
    elif all(FP16 in path.name for path, _ in model.places.values()):
        more["variant"] = "fp16"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def as_published(pipe: Any, model: TextToImage) -> dict[str, Any]:
    """Set RECE's sampler, LMS in 50 steps (UNets in latents; others keep theirs); arguments of the pipeline's call."""
    if not model.kind.startswith("UNet"):
        return {}
    pipe.scheduler = _diffusers().LMSDiscreteScheduler.from_config(pipe.scheduler.config)
    return {"num_inference_steps": STEPS}


def _denoiser(model: TextToImage, folder: Path) -> Any:
    """Of a single file, in the shape that the pipeline's configuration says."""
    kind, path = getattr(_diffusers(), model.kind), next(iter(model.places.values()))[0]
    try:
        if any(ours != theirs for ours, (_, theirs) in model.places.items()):  # CompVis' layout: diffusers converts it
            net = kind.from_single_file(str(path), config=str(folder), subfolder=model.part, local_files_only=True)
        else:
            net = kind.from_config(kind.load_config(folder / model.part))
            net.load_state_dict(model.read(model.places))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{path} does not go with {folder}: {reason[:200]}",
            "the pipeline that the file belongs to",
            "give that one with --text",
        ) from error
    return net.eval().requires_grad_(False)


def _diffusers() -> Any:
    return needed(
        "diffusers", package="diffusers", extra="erase", by="drawing images", instead="an erasure without images"
    )
