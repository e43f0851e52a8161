"""What runs in Ray's processes: the train function of each worker, and the record of failures."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def train_worker(settings: Mapping[str, Any]) -> None:
    """One rank. What it prints goes to <run folder>/logs/worker_RANK.log."""
    import ray.train

    from launch.schema import RunConfig

    context, folder = ray.train.get_context(), Path(settings["folder"])
    rank, world = context.get_world_rank(), context.get_world_size()
    _output_to(folder / "logs" / f"worker_{rank}.log")
    if os.path.isdir(settings["directory"]):
        os.chdir(settings["directory"])
    attempt = 1 + restarts(folder) - settings["restarts"]
    config = RunConfig.model_validate(settings["config"])
    settings["work"](config, folder, rank=rank, world=world, attempt=attempt)


def _output_to(path: Path) -> None:
    """Everything that this process prints goes to a file, tracebacks of native crashes included."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable(file=2)


def restarts(folder: Path) -> int:
    """Restarts of a group in the whole life of the run."""
    from generative.training.runfolder import read_lines

    return sum(event.get("kind") == "restart" for event in read_lines(folder / "events.jsonl"))


def record_failure(folder: Path, errors: Mapping[int, Exception], count: int, limit: int) -> None:
    """Keep the errors of a failed group in logs/worker_errors.log and, if it starts again, say so in events.jsonl."""
    from launch.folder import record_event

    with open(folder / "logs" / "worker_errors.log", "a", encoding="utf-8") as log:
        for rank, error in errors.items():
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} worker {rank}: {type(error).__name__}: {error}\n\n")
    rank, error = first_cause(errors)
    if count <= limit:
        record_event(folder, "restart", f"{count} of {limit}: worker {rank} {describe(error)}; all start again")


def first_cause(errors: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The rank that most likely began it: a dead process, then an exception other than a lost connection to a peer."""
    return min(errors.items(), key=lambda item: (not _died(item[1]), "onnection" in str(item[1]), item[0]))


def describe(error: Exception) -> str:
    """A failure in a few words."""
    if _died(error):
        return "died (killed, out of memory, or its node was lost)"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"failed: {lines[-1][:200]}" if lines else f"failed: {type(error).__name__}"


def _died(error: Exception) -> bool:
    """Whether the process is gone, as opposed to an exception in it."""
    return "HealthCheck" in type(error).__name__ or "Actor" in type(error).__name__
