"""Safetensors files of a bounded size, written piece by piece from a checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.hub.tensors import SavedTensor, Source
from generative.training.checkpoint.format import CODES
from generative.training.exported import INDEX, WEIGHTS

PIECE = 1 << 24
"""Elements in memory at a time."""

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes in a size such as 5GB, 500MB or 2GiB.

    Raises:
        ConfigError: it is no such size, or less than one byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match and match[2].upper() in _UNITS else 0
    if size < 1:
        raise ConfigError(
            f"--max-shard {text}: not a size",
            "a number of bytes, or one with KB, MB, GB, TB, KiB, MiB or GiB",
            "give, say, --max-shard 5GB",
        )
    return size


def split_files(tensors: Sequence[SavedTensor], most: int) -> dict[str, list[SavedTensor]]:
    """File names, and the tensors of each in their order: at most `most` bytes, or a single larger tensor."""
    shards: list[list[SavedTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > most:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    stem, suffix = WEIGHTS.split(".")
    return {f"{stem}-{i:05d}-of-{len(shards):05d}.{suffix}": shard for i, shard in enumerate(shards, start=1)}


def write_files(
    folder: Path,
    files: dict[str, list[SavedTensor]],
    source: Source,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the files, and their index where there are several.

    Args:
        folder: where to.
        files: as `split_files` gives them.
        source: where the values are.
        on_bytes: told the bytes of each piece that is written.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        OSError: the files cannot be written.
    """
    for name, tensors in files.items():
        _write_file(folder / name, tensors, source, on_bytes)
    if len(files) > 1:
        (folder / INDEX).write_text(json.dumps(_index(files), indent=2) + "\n")


def _write_file(path: Path, tensors: Sequence[SavedTensor], source: Source, on_bytes: Callable[[int], None]) -> None:
    # The largest elements first: every tensor then begins at a multiple of its element's size.
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    with path.open("wb", buffering=0) as file:
        file.write(_header(ordered))
        for tensor in ordered:
            for piece in _pieces(tensor, source):
                data = piece.view(torch.uint8).numpy().data
                while data:
                    written = file.write(data)
                    data = data[written:]
                    on_bytes(written)


def _header(tensors: Sequence[SavedTensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        offsets = [offset, offset + tensor.nbytes]
        header[tensor.name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pieces(tensor: SavedTensor, source: Source) -> Iterator[Tensor]:
    """The values in pieces of at most PIECE elements, in the type of the file."""
    for first in range(0, tensor.numel, PIECE):
        count = min(PIECE, tensor.numel - first)
        yield source.read(tensor.source, tensor.start + first, count).to(tensor.dtype)


def _index(files: dict[str, list[SavedTensor]]) -> dict[str, Any]:
    places = {tensor.name: name for name, tensors in files.items() for tensor in tensors}
    return {"metadata": {"total_size": total_bytes(files)}, "weight_map": dict(sorted(places.items()))}


def total_bytes(files: dict[str, list[SavedTensor]]) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensors in files.values() for tensor in tensors)
