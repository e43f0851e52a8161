"""Evaluation and sampling of a text model by many workers, each of which opens the run once (see `launch.ray_map`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from generative.method import Alone
from launch.opened import Changes, OpenRun, open_run
from launch.ray_map import Progress, log_file, map_items, parts
from launch.sections import LaunchConfig
from launch.text_evaluation import Subject, count_windows, part_of, scores, summary

Part = tuple[int, int]
"""First and last plus one."""

SAMPLES_AT_ONCE = 16
"""Samples that a worker draws together at most; fewer are lost with a worker, and progress shows."""


def evaluate_with(run: OpenRun, launch: LaunchConfig, changes: Changes, progress: Progress | None) -> dict[str, Any]:
    """As `launch.text_evaluation.evaluate`, by workers; figures are equal but for the last bits of floating point.

    Args:
        run: as it was opened here.
        launch: the workers.
        changes: with which the run was opened, for the workers to do the same.
        progress: told the windows that are done, and all.
    """
    settings = run.config.evaluate
    count = count_windows(settings, run.data)
    work = parts(count, launch.workers, settings.batch_size)
    size = work[0][1]

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(min(count, done * size), count)

    make = partial(_scorer, str(run.checkpoint.path), changes, size)
    found: list[Mapping[str, NDArray[np.float64]]] = map_items(work, make, launch, log_file(run.folder), tell)
    nats = {name: torch.from_numpy(np.concatenate([part[name] for part in found])) for name in found[0]}
    worn = run.worn(settings.weights)
    return summary(settings, run.data, run.method, nats, worn, run.checkpoint.step)


def _scorer(path: str, changes: Changes, size: int) -> Callable[[Part], dict[str, NDArray[np.float64]]]:
    """Scores parts of the windows with a run that is opened now."""
    run = open_run(path, changes)
    nets, _ = run.networks(run.config.evaluate.weights)
    subject = Subject(run.config.evaluate, run.data, run.method, nets, Alone(), run.device)
    ready = scores(subject)
    return lambda part: {name: part_of(subject, score, range(*part), size).numpy() for name, score in ready.items()}


def sample_with(
    run: OpenRun, launch: LaunchConfig, changes: Changes, prompt: str | None, progress: Progress | None
) -> list[dict[str, Any]]:
    """The items of `sample.count` samples, drawn by workers: each has its noise by its number, wherever it is drawn.

    Args:
        run, launch, changes: as for `evaluate_with`.
        prompt: text that each begins with.
        progress: told the samples that are done, and all.
    """
    count = run.config.sample.count
    work = parts(count, launch.workers, SAMPLES_AT_ONCE)

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(min(count, done * work[0][1]), count)

    make = partial(_drawer, str(run.checkpoint.path), changes, prompt)
    found: Sequence[list[dict[str, Any]]] = map_items(work, make, launch, log_file(run.folder), tell)
    return [item for part in found for item in part]


def _drawer(path: str, changes: Changes, prompt: str | None) -> Callable[[Part], list[dict[str, Any]]]:
    """Draws samples of given numbers with a run that is opened now."""
    from launch.text_samples import draw_samples

    run = open_run(path, changes)
    nets, _ = run.networks(run.config.sample.weights)

    def draw(part: Part) -> list[dict[str, Any]]:
        with torch.no_grad():
            return draw_samples(run.config.sample, run.data, run.method, nets, run.device, prompt, range(*part))

    return draw
