"""Networks as parts of a folder in the layout of diffusers: config.json and safetensors in a folder each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from generative.hub.files import write_files
from generative.hub.folder import appearing, check_space
from generative.hub.tensors import InMemory

WEIGHTS, CONFIG, INDEX, SCHEDULER = (
    "diffusion_pytorch_model.safetensors",
    "config.json",
    "model_index.json",
    "scheduler_config.json",
)


@dataclass(frozen=True)
class Part:
    """A network, or (without tensors) a scheduler.

    Args:
        config: its settings, with "_class_name".
        state: its state dict.
    """

    config: Mapping[str, Any]
    state: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Name of its class."""
        return str(self.config["_class_name"])

    def write(self, folder: Path) -> None:
        """Its files, into a folder that is there."""
        if not self.state:
            _write(folder / SCHEDULER, self.config)
            return
        source = InMemory({name: tensor.detach().cpu().contiguous() for name, tensor in self.state.items()})
        write_files(folder, {WEIGHTS: source.saved()}, source, lambda count: None)
        _write(folder / CONFIG, self.config)


def write_part(folder: Path, part: Part) -> list[Path]:
    """A network alone; the folder, a new one, appears when everything in it is on the disk.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    check_space(folder, _bytes(part))
    with appearing(folder, force=False) as partial:
        part.write(partial)
    return sorted(folder.iterdir())


def write_parts(folder: Path, pipeline: str, parts: Mapping[str, Part], about: Mapping[str, Any]) -> list[Path]:
    """A pipeline; as `write_part`.

    Args:
        folder: to be made.
        pipeline: class in model_index.json.
        parts: by name.
        about: what else model_index.json says.
    """
    check_space(folder, sum(map(_bytes, parts.values())))
    index = {"_class_name": pipeline, **about, **{name: ["diffusers", part.kind] for name, part in parts.items()}}
    with appearing(folder, force=False) as partial:
        for name, part in parts.items():
            (partial / name).mkdir()
            part.write(partial / name)
        _write(partial / INDEX, index)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _bytes(part: Part) -> int:
    return sum(tensor.nbytes for tensor in part.state.values())


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
