"""Pipelines with all that drawing takes: the rest of one on the hub, or of one that a single file belongs to."""

from __future__ import annotations

import re
from pathlib import Path

from generative.errors import CheckpointError
from generative.hub.open_text_to_image import INDEX, PARTS, TEXTS, fetched
from generative.hub.text_to_image import TextToImage

CHECKER = "safety_checker/*"
COMMIT = re.compile(r"[0-9a-f]{40}")
REMEDY = "connect to the hub, or download the whole pipeline and give its path"


def whole_folder(model: TextToImage, checker: bool = False) -> Path:
    """The folder of a model, with VAE, scheduler and all else; from the hub at the commit that was opened.

    Args:
        model: no single file.
        checker: with the safety checker, which judges images and takes no part in drawing them.

    Raises:
        CheckpointError: the rest cannot be fetched.
    """
    assert model.folder is not None
    if Path(model.name).expanduser().is_dir():
        return model.folder
    # the hub's cache names a snapshot by its commit: a branch may have moved since
    revision = model.folder.name if COMMIT.fullmatch(model.folder.name) else model.revision
    return fetched(model.name, revision, ["*/*", INDEX], REMEDY, [] if checker else [CHECKER])


def drawing_folder(model: TextToImage) -> Path:
    """A whole pipeline's folder; of a file, that of `text`, whose denoiser the file's weights replace.

    Raises:
        CheckpointError: a file without such a pipeline, or one that cannot be fetched.
    """
    if model.folder is not None:
        return whole_folder(model)
    if model.text is None or model.text_folder is None:
        raise CheckpointError(
            f"{model.name} is a file of weights alone, which cannot draw",
            "a pipeline with the VAE, text encoders and scheduler that belong to it",
            "give one with --text: a folder, or hub:OWNER/NAME",
        )
    if model.text_folder == Path(model.text).expanduser():
        return model.text_folder
    name, _, revision = model.text.partition("@")
    revision = model.text_folder.name if COMMIT.fullmatch(model.text_folder.name) else revision
    weights = [f"{part}/*.safetensors" for part in PARTS]
    patterns = [
        INDEX,
        *TEXTS,
        "vae/*",
        "scheduler/*",
        "feature_extractor/*",
        *(f"{part}/config.json" for part in PARTS),
    ]
    return fetched(name, revision or None, patterns, REMEDY, [CHECKER, *weights])
