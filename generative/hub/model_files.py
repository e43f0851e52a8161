"""Files of published models: JSON and safetensors, read without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from generative.errors import CheckpointError

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def opened(path: Path) -> Any:
    """A safetensors file, for `with`. Raises CheckpointError."""
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", "a whole safetensors file", "download or copy it again"
        ) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "a JSON object", "download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged", "a JSON object", "download it again")
    return value


def component_config(folder: Path, part: str) -> Mapping[str, Any]:
    """config.json of a part of a pipeline; {} where there is none."""
    return read_json(folder / part / "config.json") or {}


def checked(path: Path, name: str, weight: Tensor) -> Tensor:
    """A weight that can be edited. Raises CheckpointError: quantised, NaN or infinite."""
    if weight.dtype not in FLOATS:
        raise CheckpointError(
            f"{path}: {name} has numbers of type {str(weight.dtype).removeprefix('torch.')}",
            "a model in fp32, fp16 or bf16",
            "edit the model before it is quantised, or use its transform at run time",
        )
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise CheckpointError(
            f"{path}: {name} has {bad:,} numbers that are NaN or infinite",
            "finite weights",
            "take an undamaged copy of the model",
        )
    return weight
