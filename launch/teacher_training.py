"""Training what a run begins with (a teacher, an autoencoder) in the same command, where it is not there yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from generative.errors import ConfigError
from generative.training.starts import SOURCES, kept_copies
from launch.autoencoders import missing as no_autoencoder
from launch.console import Console
from launch.folder import outcome_state
from launch.published_teachers import fetch, is_published
from launch.teachers import exists, missing, path_of

if TYPE_CHECKING:
    from launch.schema import RunConfig

Train = Callable[[str, list[str], Console], int]
"""Trains a configuration with overrides; its exit code."""


def train_first(config: RunConfig, overrides: Sequence[str], train: Train, console: Console) -> int:
    """Train the teacher of a distillation, or the autoencoder of a model of latents, that a run is to begin with, where
    it is not complete and a configuration for it is.

    Args:
        config: of the run that needs it.
        overrides: of the command line, of which it takes over where it runs.
        train: does it.
        console: where to tell about it.

    Returns:
        0 where it is there, or not needed any more; else the exit code of its training.

    Raises:
        ConfigError: it is not there, and there is nothing to train it by.
    """
    method = config.method
    latents = getattr(method, "latents", None)
    if latents is not None:
        if latents.autoencoder is None:
            raise no_autoencoder(Path("null"))
        first = _First("autoencoder", latents.autoencoder, latents.autoencoder_config, no_autoencoder)
        return _train_first(first, config, overrides, train, console)
    if is_published(method):
        if method.teacher is None:
            raise missing(Path("null"))
        fetch(method)
        return 0
    if method.teacher is None:
        return 0
    first = _First("teacher", method.teacher, method.teacher_config, missing)
    return _train_first(first, config, overrides, train, console)


@dataclass(frozen=True)
class _First:
    """A frozen network of a run: its name there, where it is, what trains it, and the error where it is missing."""

    name: str
    source: str
    config: str | None
    missing: Callable[[Path], ConfigError]


def _train_first(first: _First, config: RunConfig, overrides: Sequence[str], train: Train, console: Console) -> int:
    if first.name in kept_copies(Path(config.folder) / "checkpoints" / SOURCES):
        return 0
    path = path_of(first.source)
    begun = (path / "config.yaml").is_file() and outcome_state(path) != "complete"
    if exists(path) and not (begun and first.config):
        return 0
    if first.config is None:
        raise first.missing(path)
    if int(os.environ.get("RANK", 0)) == 0:
        console.line(first.name, f"{first.source} is not complete yet: training {first.config} first")
    places = [word for word in overrides if word.startswith(("launch.", "parallel."))]
    return train(first.config, [*places, f"run.dir={path}"], console)
