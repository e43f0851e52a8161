"""One rank of a run: train (resuming by itself), then evaluate and sample. Writes only into the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from generative.data.loader import Loader
from generative.errors import AnomalyError, GenerativeError, PeerError, RunFolderError
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.checkpoint.rotation import complete_steps
from generative.training.hooks import Hook
from generative.training.monitor import MonitorHook, lost_work
from generative.training.profiling import ProfileHook
from generative.training.runfolder import atomic_write
from generative.training.runlock import RunLock
from generative.training.trainer import Trainer
from generative.training.validation import ValidationHook
from launch.folder import read_json
from launch.modality import build_method, modality
from launch.plan import Plan, here, outline, step_flops
from launch.ray_worker import restarts
from launch.schema import RunConfig
from launch.status import command
from launch.stopping import TERMINATED
from launch.trackers import check_trackers, make_trackers

ORPHAN_SECONDS = 90.0
"""How long a new group waits for a worker of a killed one to let go of the run folder."""


def prepare(config: RunConfig, run_dir: Path, progress: Callable[[int, int], None] | None = None) -> Plan:
    """Prepare the data and work out the plan; called once by the driver, before any worker starts.

    Raises:
        GenerativeError: whatever can be known to be wrong beforehand.
    """
    kind = modality(config)
    data = kind.open_data(config, progress)
    method = build_method(config, data.facts)
    kind.check(config, data)
    check_trackers(config)
    resumed = bool(complete_steps(run_dir / "checkpoints"))
    return here(config, outline(config, method, data.facts, data.description, resumed=resumed))


def run_worker(config: RunConfig, run_dir: Path, *, rank: int, world: int, attempt: int) -> None:
    """Run this rank to the end. How it ended is in outcome.json; only crashes raise.

    Args:
        config: the resolved configuration.
        run_dir: the run folder, seen by all ranks.
        rank: this process among `world`.
        attempt: number of this group of workers, from 1.
    """
    if attempt > 1 and _outcome(run_dir).get("state") == "failed":
        return  # A user's mistake met by one rank alone: the group was started again, and must not be a third time.
    with _stop_requests(run_dir) as stop:
        try:
            state = _run(config, run_dir, rank, attempt, stop)
        except PeerError:
            return
        except GenerativeError as error:
            if isinstance(error, AnomalyError):
                error.remedy += f". To replay: {command(run_dir)}"
            recorded = _record_failure(run_dir, error)
            if not recorded or (world > 1 and not error.agreed):
                # Raising tells the driver where the folder could not, and frees ranks that wait for this one.
                raise
            return
        if rank == 0:
            _write_outcome(run_dir, state)


def _run(config: RunConfig, run_dir: Path, rank: int, attempt: int, stop: _StopRequests) -> str:
    lock = RunLock(run_dir, "trainer")
    if rank == 0:
        lock.acquire(wait_seconds=ORPHAN_SECONDS)
    try:
        backend = Backend(config.parallel, config.train.precision, config.threads)
        state = _train(config, run_dir, backend, attempt, stop)
        backend.close()
        return state
    finally:
        if rank == 0:
            lock.release()


def _train(config: RunConfig, run_dir: Path, backend: Backend, attempt: int, stop: _StopRequests) -> str:
    kind = modality(config)
    data = kind.open_data(config)
    method = build_method(config, data.facts)
    steps = kind.steps(config, method, data.facts)
    length = data.facts.sequence_length
    keeping = config.train.checkpoint
    monitor = MonitorHook(
        run_dir,
        batch_flops=float(step_flops(config, method, data.facts)),
        tokens_per_sample=length,
        status={"config": config.name, "attempt": attempt, **_losses_so_far(run_dir, backend.rank), **_curves(method)},
        trackers=lambda: make_trackers(config, run_dir),
    )
    store = CheckpointStore(
        run_dir / "checkpoints",
        rank=backend.rank,
        world=backend.world,
        attempt=f"{backend.agree(secrets.randbits(40)):x}",
        keep_last=keeping.keep_last,
        keep_every=keeping.keep_every,
        on_event=monitor.event if backend.rank == 0 else None,
        timeout=config.parallel.patience_seconds,
    )

    def batches(state: Mapping[str, Any] | None) -> Loader:
        return Loader(
            data.train,
            batch_size=config.train.batch_size,
            micro_batch_size=config.train.micro_batch_size,
            seed=config.train.seed,
            rank=backend.rank,
            world=backend.world,
            state=state,
            workers=config.train.loader.workers,
            prefetch=config.train.loader.prefetch,
        )

    hooks: list[Hook] = [monitor, ValidationHook(config.train.validation, data.validation)]
    hooks += kind.hooks(config, data, run_dir)
    if config.train.profile.chosen():
        profile = ProfileHook(config.train.profile, run_dir)
        hooks = [monitor, profile, *hooks[1:], profile.opener]
    facts = {"config": config.name, "facts": dataclasses.asdict(data.facts)}
    trainer = Trainer(method, config.train, steps, batches, backend, store, hooks, stop, facts)
    try:
        state = trainer.train()
        if state == "complete":
            stop.release()  # all is saved: whoever stops the run now need not wait for samples and figures
            kind.finish(config, data, trainer, run_dir)
    except GenerativeError as error:
        with contextlib.suppress(RunFolderError):  # a full disk must not hide the error
            monitor.finish(state="failed", message=error.problem)
        raise
    finally:
        monitor.stop_beating()
    monitor.finish(state=state)
    return state


def _curves(method: Any) -> dict[str, Any]:
    """Bins of a method's curves for status.json, where it tells them."""
    door = getattr(method, "curves", None)
    return {} if door is None else {"curves": {name: dataclasses.asdict(bins) for name, bins in door().items()}}


def _losses_so_far(run_dir: Path, rank: int) -> dict[str, Any]:
    """Restarts and lost work for status.json, from what earlier attempts left."""
    if rank != 0:
        return {}
    earlier = read_json(run_dir / "status.json")
    newest = max(complete_steps(run_dir / "checkpoints"), default=0)
    steps, seconds = lost_work(run_dir, newest)
    return {
        "restarts": restarts(run_dir),
        "lost_seconds": float(earlier.get("lost_seconds") or 0.0) + seconds,
        "lost_steps": steps,
    }


class _StopRequests:
    """Asks whether the run was told to stop: by the file `stop`, by SIGTERM, or (in a main thread) by SIGINT.

    A second signal ends the process at once.
    """

    def __init__(self, run_dir: Path) -> None:
        self._told = threading.Event()
        self._path, self._checked = os.fspath(run_dir / "stop"), 0.0
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # None: a handler that was not installed from Python (Ray's own, in its workers) cannot be put back.
            replaced = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
            self._previous |= {number: signal.SIG_DFL if old is None else old for number, old in replaced.items()}

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._checked > 0.2:
            self._checked = now
            if os.path.exists(self._path):
                self._told.set()
        return self._told.is_set() or TERMINATED.is_set()

    def release(self) -> None:
        """From now on signals do what they did before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        self._told.set()
        self.release()


@contextlib.contextmanager
def _stop_requests(run_dir: Path) -> Iterator[_StopRequests]:
    stop = _StopRequests(run_dir)
    try:
        yield stop
    finally:
        stop.release()


def _outcome(run_dir: Path) -> dict[str, Any]:
    return read_json(run_dir / "outcome.json")


def _write_outcome(run_dir: Path, state: str, error: GenerativeError | None = None) -> None:
    fields: dict[str, Any] = {"state": state, "exit_code": 75 if state == "interrupted" else 0}
    if error is not None:
        fields |= {
            "problem": error.problem,
            "expected": error.expected,
            "remedy": error.remedy,
            "exit_code": error.exit_code,
        }
    atomic_write(run_dir / "outcome.json", json.dumps(fields, indent=1))


def _record_failure(run_dir: Path, error: GenerativeError) -> bool:
    """Leave an error for the driver and for `status`; False where the folder cannot be written (a full disk)."""
    try:
        _write_outcome(run_dir, "failed", error)
        _final_status(run_dir, "failed", error.problem)
    except RunFolderError:
        return False
    return True


def _final_status(run_dir: Path, state: str, message: str) -> None:
    status = read_json(run_dir / "status.json") | {"state": state, "message": message, "heartbeat": time.time()}
    atomic_write(run_dir / "status.json", json.dumps(status))
