"""Erased models on the disk: whole folders with other bytes in the edited matrices, and edits by other programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from generative.errors import CheckpointError
from generative.hub.legacy import read_checkpoint, read_state_dict
from generative.hub.model_files import read_json
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.families import Stream, to_diffusers
from generative.methods.rece.formats import Edits, Erased
from generative.methods.rece.layers import recover_transform
from generative.methods.rece.transform import Transform
from generative.training.checkpoint.format import DTYPES

MOST_MISSED = 0.05
"""Largest residual of somebody's edit, over the size of the edit, that still counts as a transform; files in 16 bits
and inverses in float32 leave a part of it."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb")
"""Endings of files of weights."""


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
            if entry is None or DTYPES.get(entry["dtype"]) != tensor.dtype or entry["shape"] != list(tensor.shape):
                raise CheckpointError(f"{path} has no such {name}", "the model that the edit is of", "give it")
            file.seek(8 + size + entry["data_offsets"][0])
            file.write(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


def write_model(model: TextToImage, weights: Mapping[str, Tensor], target: Path) -> None:
    """The whole model with other weights: a folder as `save_pretrained` writes it, or a file beside a file.

    Further copies of the denoiser, which the edit does not reach, stay behind: other variants (fp16, non-EMA) and
    formats, and files of the whole model beside its parts. Whoever loaded one of them would have the concept back.

    Args:
        model: as it was opened; its files are copied, links followed.
        weights: by their names in diffusers.
        target: a folder that is not there yet; a file is put into it.
    """
    if model.folder is not None:
        folder, own = model.folder, {path for path, _ in model.places.values()}

        def left(place: str, names: Iterable[str]) -> set[str]:
            paths = [Path(place) / name for name in names]
            unedited = (path for path in paths if Path(place) in (folder, folder / model.part) and _other(path, own))
            return {".git", ".cache", *(path.name for path in unedited)}

        shutil.copytree(folder, target, ignore=left)
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


def _other(path: Path, own: set[Path]) -> bool:
    """Whether a file has weights that are not among `own`, or is an index of such files."""
    if ".index." in path.name and path.suffix == ".json":
        parts = (read_json(path) or {}).get("weight_map") or {}
        return not {path.with_name(str(name)) for name in parts.values()} <= own
    return path.suffix in WEIGHTS and path not in own


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


def recovered(model: TextToImage, path: Path, streams: list[Stream]) -> tuple[Edits, dict[str, float]]:
    """Somebody's edit as a transform, by least squares over all matrices, and its residuals by stream.

    Args:
        model: the untouched one.
        path: file of UCE or RECE (see `read_foreign`).
        streams: of the model, with the readers that the edit is of.

    Raises:
        CheckpointError: it is of other matrices or another model, or nothing that a transform can express.
    """
    found = read_foreign(path, streams)
    transforms, missed = {}, {}
    for stream in streams:
        names = [name for name in stream.readers if name in found]
        if not names and stream.name != "text":
            continue  # UCE leaves the pooled text alone
        base = model.read(stream.readers)
        wrong = next((n for n in stream.readers if n not in found or found[n].shape != base[n].shape), None)
        if wrong is not None:
            raise CheckpointError(
                f"{path} has no {wrong} of the shape {list(base[wrong].shape)}",
                f"all {len(stream.readers)} matrices of this model that read the {stream.name}",
                "give the model that it was made from; for an edit of some layers, --include with part of their names",
            )
        columns = stream.columns
        matrix, residual = recover_transform(
            {name: weight[:, columns] for name, weight in base.items()},
            {name: found[name][:, columns] for name in stream.readers},
        )
        if residual > MOST_MISSED:
            raise CheckpointError(
                f"{path}: {residual:.0%} of the edit of the {stream.name} is no transform that all layers share",
                f"at most {MOST_MISSED:.0%} (an edit by `replace`, of this very model)",
                "use the file as it is; edits by `tensor` and fine-tuned models cannot be built on",
            )
        transforms[stream.name], missed[stream.name] = Transform.of(matrix), residual
    about = {"concepts": [f"(those of {path.name})"], "recovered_from": path.name, "residuals": missed}
    edits = Edits(model.name, model.fingerprint(model.streams()), (Erased(transforms, about),), model.revision)
    return edits, missed
