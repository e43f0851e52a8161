"""Drawing and scoring images by many workers, each of which opens the run once (see `launch.ray_map`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from launch.image_evaluation import (
    STREAMS,
    Part,
    Subject,
    reference_of,
    reference_scorer,
    sampler_of,
    scorer,
    subject_of,
)
from launch.image_labels import asked_data
from launch.image_progress import EvaluationProgress
from launch.image_samples import sample_streams
from launch.opened import Changes, OpenRun, open_run
from launch.ray_map import Progress, log_file, map_items, parts
from launch.sections import LaunchConfig

Item = tuple[str, int, int]
"""("generated" or "real", first, last plus one)."""

Arrays = dict[str, np.ndarray]


def parts_with(
    run: OpenRun, subject: Subject, launch: LaunchConfig, changes: Changes, progress: Progress | None
) -> tuple[Part, Part | None]:
    """Samples and real images by workers; figures are equal but for the last bits of floating point.

    Args:
        run: as it was opened here.
        subject: what is measured; its sampler is not used.
        launch: the workers.
        changes: with which the run was opened, for the workers to do the same.
        progress: told the samples and images that are done, and all.
    """
    size = 4 * subject.settings.batch_size
    counts = {"generated": subject.settings.samples}
    if subject.data.kind == "image":
        counts["real"] = len(reference_of(subject.settings, subject.data)[1])
    counted = EvaluationProgress(progress, sum(counts.values()))
    if subject.data.kind == "image":
        scorer(subject, counted.training)  # an extractor that has to be trained is, once, before workers ask for it
    work: list[Item] = [(kind, *part) for kind, count in counts.items() for part in parts(count, launch.workers, size)]
    make = partial(_scorer, str(run.checkpoint.path), changes)
    scored: list[Arrays] = map_items(work, make, launch, log_file(run.folder), counted.parts)
    found: dict[str, list[Part]] = {kind: [] for kind in counts}
    for (kind, _, _), arrays in zip(work, scored, strict=True):
        found[kind].append(Part.from_tensors({name: torch.from_numpy(array) for name, array in arrays.items()}))
    whole = {kind: reduce(Part.merge, several) for kind, several in found.items()}
    return whole["generated"], whole.get("real")


def _scorer(path: str, changes: Changes) -> Callable[[Item], Arrays]:
    """Scores parts with a run that is opened now."""
    run = open_run(path, changes)
    nets, _ = run.networks(run.config.evaluate.weights)
    sample = sampler_of(run.method, nets, run.device, STREAMS, run.data)
    subject = subject_of(run.config, run.method, run.data, sample, run.device, run.folder)
    ready: dict[str, Callable[[range], Part]] = {}
    makers: Mapping[str, Callable[[Subject], Callable[[range], Part]]] = {"generated": scorer, "real": reference_scorer}

    def score(item: Item) -> Arrays:
        kind, first, last = item
        if kind not in ready:
            ready[kind] = makers[kind](subject)
        return {name: tensor.numpy() for name, tensor in ready[kind](range(first, last)).tensors().items()}

    return score


def sampler_with(
    run: OpenRun, launch: LaunchConfig, changes: Changes, progress: Progress | None
) -> Callable[[Tensor], Tensor]:
    """int64[B] -> float32[B, *shape], drawn by workers, all that may be asked for at the first call."""
    settings = run.config.sample
    count = max(settings.count, settings.neighbours, settings.monitor)
    made: list[Tensor] = []

    def sample(ids: Tensor) -> Tensor:
        if not made:
            work = parts(count, launch.workers, 250)
            make = partial(_drawer, str(run.checkpoint.path), changes)
            drawn: list[Any] = map_items(work, make, launch, log_file(run.folder), progress)
            made.append(torch.from_numpy(np.concatenate(drawn)))
        return made[0][ids]

    return sample


def _drawer(path: str, changes: Changes) -> Callable[[tuple[int, int]], np.ndarray]:
    run = open_run(path, changes)
    nets, _ = run.networks(run.config.sample.weights)
    sample = sampler_of(run.method, nets, run.device, sample_streams(run.config.sample.seed), asked_data(run))
    return lambda part: sample(torch.arange(*part)).numpy()
