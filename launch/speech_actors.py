"""Enhancing and scoring by many workers, each of which opens the run once (see `launch.ray_map`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

from launch.opened import Changes, OpenRun, open_run
from launch.ray_map import Progress, log_file, map_items, parts
from launch.sections import LaunchConfig
from launch.speech_evaluation import Part, Subject, enhancer_of, measured, numbers_of


def part_with(run: OpenRun, launch: LaunchConfig, changes: Changes, progress: Progress | None) -> Part:
    """As `measured` of all utterances, by workers; the noise of an utterance is its own, wherever it is enhanced.

    Args:
        run: as it was opened here.
        launch: the workers.
        changes: with which the run was opened, for the workers to do the same.
        progress: told the utterances that are done, and all.
    """
    settings = run.config.evaluate
    numbers = numbers_of(settings, run.data)
    work = [numbers[first:last] for first, last in parts(len(numbers), launch.workers, 4 * settings.batch_size)]

    def tell(done: int, items: int) -> None:
        if progress is not None:
            progress(sum(map(len, work[:done])), len(numbers))

    make = partial(_scorer, str(run.checkpoint.path), changes)
    found: list[dict[str, Any]] = map_items(work, make, launch, log_file(run.folder), tell)
    return reduce(Part.merge, map(Part.from_json, found))


def _scorer(path: str, changes: Changes) -> Callable[[list[int]], dict[str, Any]]:
    """Scores utterances with a run that is opened now."""
    run = open_run(path, changes)
    nets, _ = run.networks(run.config.evaluate.weights)
    settings = run.config.evaluate
    subject = Subject(settings, run.data, enhancer_of(run.method, nets, settings.batch_size))
    return lambda numbers: measured(subject, numbers, settings.scorers).to_json()
