"""Erased models on the disk: whole folders with other bytes in the edited matrices, and edits by other programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.hub.legacy import read_checkpoint, read_state_dict
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.families import Stream, to_diffusers

CODES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def patch_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite tensors of a file in their places; everything else stays byte by byte.

    Args:
        path: a safetensors file, ours to change.
        tensors: of the same shapes and formats as there.

    Raises:
        CheckpointError: one that the file does not have so.
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name, tensor in tensors.items():
            entry = header.get(name)
            if entry is None or CODES.get(entry["dtype"]) != tensor.dtype or entry["shape"] != list(tensor.shape):
                raise CheckpointError(f"{path} has no such {name}", "the model that the edit is of", "give it")
            file.seek(8 + size + entry["data_offsets"][0])
            file.write(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


def write_model(model: TextToImage, weights: Mapping[str, Tensor], target: Path) -> None:
    """The whole model with other weights: a folder as `save_pretrained` writes it, or a file beside a file.

    Args:
        model: as it was opened; its files are copied, links followed.
        weights: by their names in diffusers.
        target: a folder that is not there yet; a file is put into it.
    """
    if model.folder is not None:
        shutil.copytree(model.folder, target, ignore=shutil.ignore_patterns(".git", ".cache"))
    else:
        target.mkdir(parents=True)
        source = next(iter(model.places.values()))[0]
        shutil.copyfile(source, target / source.name)
    by_file: dict[Path, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        path, stored = model.places[name]
        place = path.relative_to(model.folder) if model.folder is not None else Path(path.name)
        by_file.setdefault(target / place, {})[stored] = weight
    for path, tensors in by_file.items():
        path.chmod(path.stat().st_mode | 0o200)
        patch_safetensors(path, tensors)


def read_foreign(path: Path, streams: list[Stream]) -> dict[str, Tensor]:
    """Matrices that read text from a file of another program: UCE's .safetensors, RECE's .pt (a whole UNet).

    Names with `unet.` or `transformer.` before them, and the CompVis layout, are understood; nothing in it is run.

    Args:
        path: the file.
        streams: of the model that it was made from.

    Raises:
        CheckpointError: no such file, no state dict, or none of the matrices in it.
    """
    try:
        state = read_state_dict(path)
    except CheckpointError:
        inner = read_checkpoint(path).get("state_dict") if path.is_file() and path.suffix != ".safetensors" else None
        if not isinstance(inner, Mapping):
            raise
        state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    names = {name for stream in streams for name in stream.readers}
    found = {}
    for name, value in state.items():
        ours = to_diffusers(name.removeprefix("unet.").removeprefix("transformer."))
        if ours in names:
            found[ours] = value
    if not found:
        raise CheckpointError(
            f"{path} has none of the matrices that read text ({sorted(names)[0]}, ...)",
            "an edit of this model: a partial safetensors file, or a UNet's state dict",
            "give a file that UCE or RECE wrote for the same kind of model",
        )
    return found
