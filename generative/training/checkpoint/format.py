"""Names, headers and the index: the format on disk, without any writing or reading of files."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from generative.errors import CheckpointError

VERSION = 1
INDEX = "index.json"
CODES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Element types by their names in safetensors."""
DTYPES = {code: dtype for dtype, code in CODES.items()}

_STEP = re.compile(r"step_(\d{6,})")
Piece = tuple[str, int, int]
"""(file, start, numel) of an interval of a flattened tensor."""


def step_folder(step: int) -> str:
    """Name of a complete checkpoint's folder."""
    return f"step_{step:06d}"


def step_of(name: str) -> int | None:
    """The step that a folder name stands for; None for every other name (unfinished writes among them)."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match else None


def file_header(intervals: Iterable[tuple[str, str, int, int]]) -> bytes:
    """First bytes of a safetensors file of 1-D tensors (name, dtype code, numel, bytes) that lie end to end."""
    header, offset = {}, 0
    for name, code, numel, size in intervals:
        header[name] = {"dtype": code, "shape": [numel], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def merge_parts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table {name: {shape, dtype, pieces}} of all ranks' parts, with the proof that it is complete.

    Raises:
        CheckpointError: ranks disagree on a tensor, or their pieces leave a gap or overlap.
    """
    table: dict[str, dict[str, Any]] = {}
    for part in parts:
        for name, (shape, dtype, start, numel) in part["tensors"].items():
            entry = table.setdefault(name, {"shape": shape, "dtype": dtype, "pieces": []})
            if (entry["shape"], entry["dtype"]) != (shape, dtype):
                raise _inconsistent(name, f"{entry['dtype']}{entry['shape']} on one rank and {dtype}{shape} on another")
            if numel:
                entry["pieces"].append([part["file"], start, numel])
    for name, entry in table.items():
        entry["pieces"].sort(key=lambda piece: piece[1])
        prove_cover(name, math.prod(entry["shape"]), entry["pieces"])
    return dict(sorted(table.items()))


def prove_cover(name: str, numel: int, pieces: Sequence[Sequence[Any]]) -> None:
    """Checks that sorted pieces cover the elements 0 .. numel - 1 exactly."""
    end = 0
    for file, start, count in pieces:
        if start != end:
            raise _inconsistent(name, f"{'a gap' if start > end else 'an overlap'} at element {end} before {file}")
        end += count
    if end != numel:
        raise _inconsistent(name, f"the ranks hold {end} of {numel} elements")


def _inconsistent(name: str, problem: str) -> CheckpointError:
    return CheckpointError(
        f"the ranks' parts of tensor {name!r} do not fit together: {problem}",
        "each element on exactly one rank",
        "this is a mistake in the code that hands out the shares: please report it",
    )


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def encode_index(step: int, parts: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> bytes:
    """The text of index.json; `checksum` covers everything else in it."""
    files = {part["file"]: {"bytes": part["bytes"], "sha256": part["sha256"]} for part in parts}
    body = {"version": VERSION, "step": step, "world": len(parts), "tensors": merge_parts(parts), "files": files}
    body["meta"] = dict(meta)
    return (json.dumps({**body, "checksum": _checksum(body)}, indent=None) + "\n").encode()


def decode_index(text: bytes) -> dict[str, Any]:
    """The index, if it is whole.

    Raises:
        ValueError: it is damaged (says how).
        CheckpointError: it was written in another version of the format.
    """
    try:
        index = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(index, dict) or "version" not in index:
        raise ValueError("not the index of a checkpoint")
    if index["version"] != VERSION:
        raise CheckpointError(
            f"the checkpoint has format version {index['version']}",
            f"version {VERSION}",
            "read it with the version of this program that wrote it",
        )
    if index.pop("checksum", None) != _checksum(index):
        raise ValueError("the checksum in it does not fit it")
    if any("/" in file or file.startswith(".") for file in index["files"]):
        raise ValueError("it names files outside of its folder")
    return index
