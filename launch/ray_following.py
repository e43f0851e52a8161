"""A Ray actor beside the workers of a run, which measures their checkpoints (`launch.following`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from generative.allocator import keep_freed_memory
from launch import ray_cluster

if TYPE_CHECKING:
    from launch.schema import RunConfig

POLL_SECONDS = 1.0
MOST_RESTARTS = 3
NICENESS = 10
"""On a machine whose cores it shares with the workers, they come first."""


@contextlib.contextmanager
def followed(config: RunConfig, folder: Path) -> Iterator[None]:
    """Inside, an actor measures checkpoints as they appear; after a complete run it is waited for.

    It never fails a run: what goes wrong with it is an event of the run folder.
    """
    if getattr(config.evaluate, "every_steps", None) is None:
        yield
        return
    import ray

    # No core is set aside for it: a machine that has just enough for the workers would have no place.
    make = ray.remote(num_cpus=0, num_gpus=config.evaluate.gpus, max_restarts=MOST_RESTARTS, max_task_retries=-1)
    actor = make(Following).remote(os.getcwd(), config.threads)
    work = actor.follow.remote(str(folder))
    try:
        yield
        _wait(work, config, folder)
    finally:
        ray.kill(actor)


def _wait(work: object, config: RunConfig, folder: Path) -> None:
    """For the last checkpoints of a complete run; what has failed is told."""
    import ray

    from launch.folder import outcome_state, record_event

    if outcome_state(folder) != "complete":
        return
    done, _ = ray.wait([work], timeout=float(config.parallel.patience_seconds))
    try:
        if done:
            ray.get(work)
        else:
            record_event(folder, "warning", "the figures along the training were given up: they took too long")
    except Exception as error:
        ray_cluster.LOG.exception("the actor that measures checkpoints has failed")
        first = (str(error).strip().splitlines() or [""])[-1]
        record_event(folder, "warning", f"figures along the training are missing: {first[:200]}")


class Following:
    """The actor: measures until the run is complete and nothing is left.

    Args:
        directory: of the command, which relative paths mean.
        threads: of torch.
    """

    def __init__(self, directory: str, threads: int) -> None:
        import torch

        if os.path.isdir(directory):
            os.chdir(directory)
        if not torch.cuda.is_available():
            os.nice(NICENESS)
        torch.set_num_threads(threads)
        keep_freed_memory()

    def follow(self, folder: str) -> None:
        """Measure the checkpoints of a run as they appear."""
        from launch.folder import outcome_state
        from launch.following import Judge

        judge = Judge(Path(folder))
        while True:
            complete = outcome_state(Path(folder)) == "complete"
            due = judge.due()
            if due:
                judge.measure(due[0])
            elif complete:
                return
            else:
                time.sleep(POLL_SECONDS)
