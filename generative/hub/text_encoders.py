"""Text encoders and tokenizers in the folder of a pipeline, of a short list of classes."""

from __future__ import annotations

from pathlib import Path

import torch

from generative.data.packages import needed
from generative.errors import CheckpointError
from generative.hub.model_files import component_config
from generative.methods.rece.encoders import Encoder, TextEncoders

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
T5_LENGTHS = {"SD3Transformer2DModel": 256, "FluxTransformer2DModel": 512, "UNet2DConditionModel": 77}
"""Tokens of T5 that the pipelines take; PixArt: 120, its Sigma 300."""


def read_encoders(folder: Path, kind: str, pipeline: str = "", width: int | None = None) -> TextEncoders:
    """The text encoders of a pipeline.

    Args:
        folder: of the pipeline.
        kind: class of its denoiser.
        pipeline: its class.
        width: of the token sequence that the denoiser reads, where CLIP's is filled up to it (SD3).

    Raises:
        CheckpointError: there are none, they cannot be read, or are of a class that is not known.
        DataError: transformers is not installed.
    """
    length = 300 if "Sigma" in pipeline else T5_LENGTHS.get(kind, 120)
    found = {name: _encoder(folder, name, length, kind) for name in ENCODERS if (folder / name).is_dir()}
    if not found:
        raise CheckpointError(f"{folder} has no text encoder", "a folder text_encoder", "give a whole pipeline")
    return TextEncoders(kind, found, width)


def _encoder(folder: Path, name: str, t5_length: int, kind: str) -> Encoder:
    library = needed(
        "transformers",
        package="transformers",
        extra="hub",
        by="a text encoder",
        instead="no other way to read texts",
    )
    config = component_config(folder, name)
    architecture = next(iter(config.get("architectures") or ["CLIPTextModel"]))
    if architecture not in CLASSES:
        raise CheckpointError(
            f"{folder / name}: a text encoder of the class {architecture}",
            f"one of {', '.join(CLASSES)}",
            "give a model with such encoders",
        )
    tokenizer_folder = folder / name.replace("text_encoder", "tokenizer")
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(tokenizer_folder, trust_remote_code=False)
        wide = "auto" if architecture.startswith("T5") else torch.float32
        model, told = getattr(library, architecture).from_pretrained(
            folder / name, dtype=wide, use_safetensors=True, output_loading_info=True
        )
        if missing := sorted(told["missing_keys"]):  # transformers would go on with random numbers
            raise ValueError(f"{len(missing)} weights are not there, such as {missing[0]}")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{folder / name} or {tokenizer_folder} cannot be read: {reason[:200]}",
            "a text encoder in safetensors, and its tokenizer",
            "download the model again",
        ) from error
    is_t5 = architecture.startswith("T5")
    length = t5_length if is_t5 else min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
    return Encoder(tokenizer, model.eval(), length, attends=is_t5 and not kind.startswith(("SD3", "Flux")))
