"""Training the teacher of a distillation in the same command, where it is not there yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generative.training.starts import SOURCES, kept_copies
from launch.console import Console
from launch.folder import read_json
from launch.published_teachers import fetch, is_published
from launch.teachers import exists, missing, path_of

if TYPE_CHECKING:
    from launch.schema import RunConfig

Train = Callable[[str, list[str], Console], int]
"""Trains a configuration with overrides; its exit code."""


def train_first(config: RunConfig, overrides: Sequence[str], train: Train, console: Console) -> int:
    """Train the teacher of a distillation that is to begin, where it is not complete and a configuration for it is.

    Args:
        config: of the distillation.
        overrides: of the command line, of which the teacher takes over where it runs.
        train: does it.
        console: where to tell about it.

    Returns:
        0 where the teacher is there, or not needed any more; else the exit code of its training.

    Raises:
        ConfigError: there is no teacher, and nothing to train it by.
    """
    method = config.method
    if is_published(method):
        if method.teacher is None:
            raise missing(Path("null"))
        fetch(method)
        return 0
    if method.teacher is None or "teacher" in kept_copies(Path(config.folder) / "checkpoints" / SOURCES):
        return 0
    path = path_of(method.teacher)
    begun = (path / "config.yaml").is_file() and read_json(path / "outcome.json").get("state") != "complete"
    if exists(path) and not (begun and method.teacher_config):
        return 0
    if method.teacher_config is None:
        raise missing(path)
    if int(os.environ.get("RANK", 0)) == 0:
        console.line("teacher", f"{method.teacher} is not complete yet: training {method.teacher_config} first")
    places = [word for word in overrides if word.startswith(("launch.", "parallel."))]
    return train(method.teacher_config, [*places, f"run.dir={path}"], console)
