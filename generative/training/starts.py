"""Where the networks of a method start from: fresh weights, one another, checkpoints, and copies that a run keeps."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import nn

from generative.errors import CheckpointError, ConfigError
from generative.method import NetworkSpec
from generative.training.checkpoint import Checkpoint, CheckpointStore, Entry
from generative.training.checkpoint.format import step_folder
from generative.training.checkpoint.rotation import complete_steps
from generative.training.config import TrainConfig
from generative.training.state import persistent_buffers

NETWORK = "network:"
"""Begins a source that is another network of the method."""

Sources = dict[str, str]
"""Networks that start from a checkpoint, and its exact place: {"teacher": "runs/a/checkpoints/step_000100#net"}."""


SOURCES = "sources"
"""Folder in a run's checkpoints for copies of frozen networks that came from elsewhere."""


def start_of(name: str, spec: NetworkSpec, config: TrainConfig) -> tuple[str, str | None]:
    """Where a network's weights start (None: fresh), after the words that say where this is set."""
    own = config.networks.get(name)
    if own and own.init_from:
        return f"train.networks.{name}.init_from", own.init_from
    return f"init_from of network {name!r}", spec.init_from


def started_part(module: nn.Module, name: str, spec: NetworkSpec, config: TrainConfig) -> nn.Module:
    """What of a network its source fills: a part where the method says so, the whole where the configuration does."""
    own = config.networks.get(name)
    if spec.init_part is None or (own and own.init_from):
        return module
    return module.get_submodule(spec.init_part)


def origins(name: str, specs: Mapping[str, NetworkSpec], config: TrainConfig) -> list[str]:
    """What a network starts from, what that starts from, and so on: ["network:student", "runs/a"]; [] where fresh.

    Raises:
        ConfigError: networks start from one another in a circle.
    """
    found: list[str] = []
    source = start_of(name, specs[name], config)[1]
    while source:
        found.append(source)
        if len(found) > len(specs):
            raise ConfigError(
                f"network {name!r} starts from itself, by way of {source!r}",
                "a chain of init_from that ends in a run, a checkpoint, an export or fresh weights",
                f"correct train.networks.{name}.init_from",
            )
        other = source.removeprefix(NETWORK)
        source = start_of(other, specs[other], config)[1] if source.startswith(NETWORK) else None
    return found


def copied_by_frozen(specs: Mapping[str, NetworkSpec], config: TrainConfig, kept: Collection[str] = ()) -> set[str]:
    """Networks whose first weights frozen ones (but for those that are `kept`) copy, directly or through others."""
    frozen = [name for name, spec in specs.items() if not spec.trainable and name not in kept]
    sources = [source for name in frozen for source in origins(name, specs, config)]
    return {source.removeprefix(NETWORK) for source in sources if source.startswith(NETWORK)}


def from_outside(name: str, specs: Mapping[str, NetworkSpec], config: TrainConfig) -> bool:
    """Whether a network's first weights are in the end those of a checkpoint or export, not fresh ones."""
    return not (origins(name, specs, config) or [NETWORK])[-1].startswith(NETWORK)


def keep_copy(folder: Path, name: str, module: nn.Module) -> None:
    """Write a frozen network to FOLDER/NAME as a checkpoint of its own, in place of one that is there.

    Raises:
        CheckpointError: the disk is full, or cannot be written.
    """
    shutil.rmtree(folder / name, ignore_errors=True)
    parts = {"param": module.named_parameters(), "buffer": persistent_buffers(module)}
    entries = {f"net/{name}/{part}/{key}": Entry(t.detach()) for part, pairs in parts.items() for key, t in pairs}
    CheckpointStore(folder / name).save(0, entries, {}, asynchronous=False)


def kept_copies(folder: Path) -> dict[str, str]:
    """Networks that `keep_copy` has written whole, and where."""
    return {path.name: str(path) for path in folder.glob("*") if complete_steps(path)}


def pinned_sources(folder: Path) -> Sources | None:
    """What the newest readable checkpoint of a run says about its sources; None for a run without checkpoints."""
    for step in reversed(complete_steps(folder)):
        with contextlib.suppress(CheckpointError):
            return dict(Checkpoint(folder / step_folder(step)).meta.get("sources", {}))
    return None
