"""The driver of `generative train`: checks, plan, workers, outcome, report. It trains nothing itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evaluation.quantities import compact, duration
from generative.errors import GenerativeError
from launch.console import Console, Follower, bar_progress
from launch.folder import (
    beating,
    check_same_run,
    clear_requests,
    leave,
    outcome_state,
    read_json,
    record_event,
    update_status,
    write_environment,
)
from launch.imports import uncollected
from launch.room import room
from launch.stopping import INTERRUPTED, StopRequest, stop_on_signals

if TYPE_CHECKING:
    from launch.plan import Plan
    from launch.schema import RunConfig


class Work(Protocol):
    """One rank of a run, see `launch.worker.run_worker`."""

    def __call__(self, config: RunConfig, run_dir: Path, *, rank: int, world: int, attempt: int) -> None: ...


@dataclass(frozen=True)
class Task:
    """What is run: the part before any worker starts, the part of each worker, and the report after them."""

    prepare: Callable[[RunConfig, Path, Callable[[int, int], None]], Plan]
    work: Work
    report: Callable[[Path], object]


class Backend(Protocol):
    """What runs the workers: made before the preparation (so that a cluster can start meanwhile), used after it."""

    def run(self, follower: Follower, request: StopRequest) -> None:
        """Run all workers to their end; how it ended is in outcome.json.

        Raises:
            GenerativeError: the workers could not be run to an end.
        """


class RecordedError(GenerativeError):
    """An error that the workers met and left in outcome.json."""

    def __init__(self, outcome: dict[str, Any]) -> None:
        super().__init__(str(outcome.get("problem")), str(outcome.get("expected")), str(outcome.get("remedy")))
        self.exit_code = int(outcome.get("exit_code") or 1)


def training() -> Task:
    """Training as a configuration says."""
    with uncollected():
        from evaluation.report import write_report
        from launch import worker

    return Task(worker.prepare, worker.run_worker, write_report)


def train(
    name: str,
    overrides: Sequence[str] = (),
    task: Task | None = None,
    console: Console | None = None,
    on_folder: Callable[[str], None] = lambda folder: None,
) -> int:
    """Train a configuration from wherever it stands to its end.

    Args:
        name: configuration.
        overrides: `a.b=c`.
        task: what to run; None for the training that the configuration describes.
        console: where to tell about it.
        on_folder: told the run folder before anything is done there.

    Returns:
        Exit code: 0 when the run is complete, 75 when it was interrupted and the same command goes on with it.

    Raises:
        GenerativeError: everything else, with its own exit code.
    """
    from launch.schema import load_run_config

    config = load_run_config(name, overrides)
    if config.method.name == "f_distill" or getattr(config.method, "latents", None) is not None:
        from launch.teacher_training import train_first

        def of_teacher(name: str, words: list[str], console: Console) -> int:
            return train(name, words, console=console, on_folder=on_folder)

        if code := train_first(config, overrides, of_teacher, console or Console()):
            return code
        config = load_run_config(name, overrides)  # with what the teacher or autoencoder itself tells
    rank = int(os.environ.get("RANK", 0)) if config.launch.backend == "local" else 0
    if rank > 0:
        return _follow_rank_0(config, task or training(), rank)
    console = console or Console()
    folder = Path(config.folder).absolute()
    on_folder(str(folder))
    with _claimed(folder), stop_on_signals(folder) as request:
        notes = check_same_run(folder, config.folder, config)
        complete = outcome_state(folder) == "complete"
        if complete and _reported(folder):
            console.line("done", f"{config.name} is complete already · report {config.folder}/report.html")
            return 0
        try:
            if complete:  # the last start was cut off before its report
                return _finish(config, folder, task or training(), console)
            _begin(config, folder, notes, console)
            task = task or training()
            _run(config, folder, task, console, request)
            return _finish(config, folder, task, console)
        except KeyboardInterrupt:
            leave(folder, "interrupted", "stopped at once")
            console.line("stop", "stopped at once; the same command goes on from the newest checkpoint")
            return INTERRUPTED
        except Exception as error:
            leave(folder, "interrupted" if getattr(error, "exit_code", 1) == INTERRUPTED else "failed", error)
            raise


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """The run folder, writable and for this driver alone."""
    from generative.training.runfolder import check_writable
    from generative.training.runlock import RunLock

    check_writable(folder)
    with RunLock(folder, "driver").acquire():
        yield


def _reported(folder: Path) -> bool:
    """Whether the report is of how the run ended; one that an interrupted start left is older."""
    report = folder / "report.html"
    return report.exists() and report.stat().st_mtime >= (folder / "outcome.json").stat().st_mtime


def _begin(config: RunConfig, folder: Path, notes: list[str], console: Console) -> None:
    """Write what the run is and runs on; tell what changed since it was last started."""
    from generative.config import to_yaml
    from generative.training.runfolder import atomic_write
    from launch.environment import changes, describe

    clear_requests(folder)
    (folder / "logs").mkdir(exist_ok=True)
    environment = describe()
    for change in [*notes, *changes(read_json(folder / "environment.json"), environment)]:
        console.line("note", f"changed since the last start: {change}")
        record_event(folder, "start", f"changed since the last start: {change}")
    atomic_write(folder / "config.yaml", to_yaml(config))
    write_environment(folder, environment)
    update_status(
        folder, state="starting", config=config.name, pid=os.getpid(), world=config.launch.workers, message=""
    )


def _run(config: RunConfig, folder: Path, task: Task, console: Console, request: StopRequest) -> None:
    with _backend(config, folder, task.work, console) as backend:
        plan = task.prepare(config, folder, beating(folder, bar_progress(console, "data", "B")))
        console.end_progress()
        _show_plan(config, plan, console)
        follower = Follower(folder, config.folder, console)
        request.begin()
        try:
            backend.run(follower, request)
        finally:
            request.end()
            follower.close()


def _backend(config: RunConfig, folder: Path, work: Work, console: Console) -> AbstractContextManager[Backend]:
    if config.launch.backend == "local":
        from launch.local import LocalBackend

        return contextlib.nullcontext(LocalBackend(config, folder, work, console))
    from launch.ray_train import RayBackend

    return RayBackend(config, folder, work, console)


def _show_plan(config: RunConfig, plan: Plan, console: Console) -> None:
    workers = config.launch.workers if config.launch.backend == "ray" else int(os.environ.get("WORLD_SIZE", 1))
    parts = [config.name, f"{compact(plan.parameters, ' ')} parameters"]
    spread = "" if config.parallel.strategy in ("none", "ddp") else f" under {config.parallel.strategy}"
    parts.append(f"{workers} worker{'s' if workers > 1 else ''}{spread}")
    parts.append(f"{plan.flops:.2g} FLOP".replace("e+", "e"))
    if plan.tokens:
        parts.append(f"{compact(plan.tokens, ' ')} tokens")
    else:
        parts.append(f"{compact(plan.steps * plan.spread.batch_size, ' ')} samples")
    if plan.seconds is not None:
        parts.append(f"about {duration(plan.seconds)}")
    parts.append(plan.description)
    parts.append(room(config, plan.memory_bytes, workers))
    console.line("plan", " · ".join(part for part in parts if part))


def _finish(config: RunConfig, folder: Path, task: Task, console: Console) -> int:
    """Turn the outcome into lines, a report and an exit code."""
    outcome = read_json(folder / "outcome.json")
    state = outcome.get("state")
    if state == "interrupted":
        step = read_json(folder / "status.json").get("step", 0)
        with contextlib.suppress(Exception):
            task.report(folder)
        console.line("stop", f"interrupted at step {step}, which is saved; give the same command again to go on")
        return INTERRUPTED
    if state == "failed":
        with contextlib.suppress(Exception):
            task.report(folder)
        raise RecordedError(outcome)
    if state != "complete":
        raise GenerativeError(
            f"the workers of {config.name} ended without saying how",
            "an outcome.json in the run folder",
            f"look at {config.folder}/logs, then give the same command again: it goes on from the newest checkpoint",
        )
    task.report(folder)
    from launch.results import result_lines

    for label, text in result_lines(folder, config.folder):
        console.line(label, text)
    return 0


def _follow_rank_0(config: RunConfig, task: Task, rank: int) -> int:
    """Ranks above 0 of torchrun: train along; files, messages and checks are rank 0's."""
    from launch.local import attempt

    folder = Path(config.folder).absolute()
    if outcome_state(folder) == "complete":
        return 0  # rank 0 leaves at once too
    task.work(config, folder, rank=rank, world=int(os.environ["WORLD_SIZE"]), attempt=attempt())
    return int(read_json(folder / "outcome.json").get("exit_code") or 0)
