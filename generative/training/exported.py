"""Exported folders (config.json and model.safetensors, whole or in shards) as something that weights can start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from generative.errors import CheckpointError, suggestion
from generative.training.checkpoint import Checkpoint, open_checkpoint

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MODEL_TYPE = "generative"
"""model_type in the config.json of an export that can be read back."""

_REMEDY = "copy the folder again from where it is whole, or export it again"


class ExportedWeights:
    """Networks in an exported folder, with the names that they have in a checkpoint ("net/NAME/param/...").

    config.json names one ("network"), whose tensors have the names of its state dict, or several ("networks"), whose
    tensors have the network's name before them ("generator/model.0.weight").

    Raises:
        CheckpointError: the folder is damaged, or in a layout for other programs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        config = _read_json(path / CONFIG)
        if config.get("model_type") != MODEL_TYPE or not ("network" in config or "networks" in config):
            raise CheckpointError(
                f"{path} holds a model of type {config.get('model_type')!r}, under names of another program",
                f"a folder that `generative export --layout generative` wrote (model_type {MODEL_TYPE!r})",
                "export the run again with --layout generative, or start from the run itself",
            )
        self._handles = {file: _open(path / file) for file in self._files()}
        self._places = {
            _full_name(config.get("network"), name): (handle, name)
            for handle in self._handles.values()
            for name in handle.keys()  # noqa: SIM118
        }

    def _files(self) -> list[str]:
        if not (self.path / INDEX).exists():
            return [WEIGHTS]
        places = _read_json(self.path / INDEX).get("weight_map")
        files = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        if not files or any(Path(file).name != file for file in files):
            raise CheckpointError(f"{self.path / INDEX} is damaged", "names of files in its folder", _REMEDY)
        return files

    def names(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        handle, stored = self._find(name)
        return tuple(handle.get_slice(stored).get_shape())

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        handle, stored = self._find(name)
        found: Tensor = handle.get_tensor(stored)
        return found

    def close(self) -> None:
        """Closes the files; nothing can be read after it."""
        self._handles.clear()
        self._places.clear()

    def _find(self, name: str) -> tuple[Any, str]:
        if name not in self._places:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}{suggestion(name, self.names())}", "", _REMEDY)
        return self._places[name]


def _full_name(network: str | None, stored: str) -> str:
    """Name of a tensor in a checkpoint; `network`: the only one of the folder."""
    if network is None:
        network, _, stored = stored.partition("/")
    return f"net/{network}/param/{stored}"


def open_weights(path: Path | str, verify: bool = True) -> Checkpoint | ExportedWeights:
    """What is stored at `path`: a run, one of its checkpoints, or an exported folder; errors as `open_checkpoint`."""
    path = Path(path)
    return ExportedWeights(path) if (path / CONFIG).is_file() else open_checkpoint(path, verify)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "a JSON object", _REMEDY) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged", "a JSON object", _REMEDY)
    return value


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except Exception as error:  # safetensors raises several unrelated types
        raise CheckpointError(f"{path} cannot be read: {error}", "a whole safetensors file", _REMEDY) from error
