"""A finished (or stopped) run, opened again from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generative.config import Layers, validate
from generative.errors import ConfigError
from generative.method import Average, Method, NetworkSpec, average_name
from generative.training.checkpoint import Checkpoint, open_checkpoint
from generative.training.networks import checkpoint_weights, has_network, initialize, load_weights
from generative.training.precision import under_autocast
from generative.training.starts import SOURCES, kept_copies
from launch import folder as run_folder
from launch.afterwards import Afterwards, asked_width
from launch.asked import check_sampling
from launch.modality import build_method, modality
from launch.schema import RunConfig

BEST = "best"
"""Folder in a run's for the best weights by figures along the training (`evaluate.every_steps`), as a checkpoint."""

Changes = Mapping[str, Any]
"""Dotted keys and their new values."""


@dataclass(frozen=True)
class OpenRun:
    """A run's newest complete checkpoint with everything that belongs to it."""

    folder: Path
    config: RunConfig
    data: Any
    method: Any
    checkpoint: Checkpoint
    device: torch.device

    def _rate(self, spec: NetworkSpec, weights: str) -> Average | None:
        """The average that a network wears."""
        if weights == "trained" or not spec.ema or self.best:
            return None
        named = {average_name(average): average for average in spec.ema}
        wanted = weights.removeprefix("ema=")
        if weights.startswith("ema=") and wanted not in named:
            raise ConfigError(
                f"weights {weights}: the run has no such average",
                expected=f"one of {', '.join(f'ema={name}' for name in named)}, or trained",
                remedy="give one of these",
            )
        return named.get(wanted, spec.ema[0])

    def _afterwards(self, weights: str) -> Afterwards | None:
        """The average that is to be made of those that are kept; None: weights that are there."""
        width = asked_width(weights)
        if width is None:
            return None
        if self.best:
            raise ConfigError(
                f"weights {weights} of {self.checkpoint.path}, which has one set of weights",
                expected="a run, or one of its checkpoints",
                remedy="name the run's newest checkpoint (RUN/checkpoints/step_...)",
            )
        return Afterwards.of(self.checkpoint, width)

    @property
    def best(self) -> str | None:
        """Of the checkpoint in RUN/best: the name of the weights that its networks wear."""
        return kept_as_best(self.checkpoint)

    def networks(self, weights: str) -> tuple[Mapping[str, nn.Module], str]:
        """The networks in eval mode, and the name of the weights that they wear ("ema 0.99" or "trained").

        They compute in the precision that the run was trained and evaluated in.

        Args:
            weights: "ema" (the first average of each network), "trained", an average by its name ("0.99"), or
                "power=0.15", which is made of the power-function averages in the run's checkpoints.

        Raises:
            ConfigError, CheckpointError: no such weights.
        """
        afterwards = self._afterwards(weights)
        nets: dict[str, nn.Module] = {}
        kept = kept_copies(self.folder / "checkpoints" / SOURCES)
        for name, spec in self.method.networks().items():
            if self.best and spec.trainable and not has_network(self.checkpoint, name):
                continue
            module = spec.build()
            if spec.trainable:
                if afterwards is not None and spec.ema:
                    worn = afterwards.weights(name)
                else:
                    worn = checkpoint_weights(self.checkpoint, name, self._rate(spec, weights))
                load_weights(module, worn, str(self.checkpoint.path))
            elif name in kept:
                initialize(module, kept[name], name, {})
            nets[name] = under_autocast(module.to(self.device).eval(), self.config.train.precision, self.device)
        return nets, self.worn(weights)

    def worn(self, weights: str) -> str:
        """Name of the weights that the networks wear."""
        afterwards = self._afterwards(weights)
        if afterwards is not None:
            averaged = [name for name, spec in self.method.networks().items() if spec.ema]
            return afterwards.name((averaged or list(self.method.networks()))[0])
        rates = [self._rate(spec, weights) for spec in self.method.networks().values() if spec.ema]
        return self.best or (f"ema {rates[0]}" if rates and rates[0] is not None else "trained")


def kept_as_best(checkpoint: Checkpoint) -> str | None:
    """Of a checkpoint in RUN/best: the name of the weights that its networks wear; None for any other."""
    kept = checkpoint.meta.get("best") if checkpoint.path.parent.name == BEST else None
    return f"{kept['model']}, the best of the training" if kept else None


def averages(method: Method) -> list[str]:
    """Names of all averages that a method's networks have; ["trained"] where there are none."""
    named = [average_name(average) for spec in method.networks().values() for average in spec.ema]
    return list(dict.fromkeys(named)) or ["trained"]


def run_folder_of(path: str | Path) -> Path:
    """The run folder of a run or of one of its checkpoints."""
    path = Path(path)
    if path.name == BEST and (path.parent / "config.yaml").is_file():
        return path.parent
    return path.parent.parent if path.parent.name in ("checkpoints", BEST) else path


def read_config(folder: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The resolved configuration of a run folder.

    Args:
        folder: the run folder.
        changes: dotted keys to set in it.

    Raises:
        ConfigError: the folder holds no run, or a change is not valid.
        RunFolderError: its config.yaml is damaged, or of another version.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not a run folder (it has no config.yaml)",
            expected="a folder that `generative train` has written",
            remedy="`generative status runs` lists the runs there are",
        )
    config = run_folder.validate(run_folder.read_layers(path), path)
    return _changed(config, path, changes) if changes else config


def _changed(config: RunConfig, path: Path, changes: Mapping[str, Any]) -> RunConfig:
    layers = Layers()
    layers.merge(config.model_dump(mode="json"), str(path), {})
    for key, value in changes.items():
        check_sampling(key, layers.values["method"])
        layers.put(key.split("."), value)
    return validate(layers, type(config))


def open_run(path: str | Path, changes: Mapping[str, Any] | None = None) -> OpenRun:
    """Open a run folder, or one of its checkpoint folders.

    Args:
        path: the run folder, or <run>/checkpoints/step_xxxxxx.
        changes: as for `read_config`.

    Raises:
        ConfigError, RunFolderError, CheckpointError, DataError: what is missing, damaged, or not a run.
    """
    path = Path(path)
    folder = run_folder_of(path)
    config = read_config(folder, changes)
    checkpoint = open_checkpoint(path)
    kind = modality(config)
    data = kind.open_data(config)
    kind.check_checkpoint(data, checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return OpenRun(folder, config, data, build_method(config, data.facts), checkpoint, device)
