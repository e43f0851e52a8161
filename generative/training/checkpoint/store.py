"""The checkpoints of a run, as the trainer uses them: save in the background, rotate, find the newest."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.errors import CheckpointError
from generative.training.checkpoint import rotation, writer
from generative.training.checkpoint.entries import Entry
from generative.training.checkpoint.format import step_folder
from generative.training.checkpoint.reader import Checkpoint, DamagedCheckpointError, OnEvent, newest_in
from generative.training.checkpoint.snapshot import Snapshot

CLOSING_SECONDS = 30.0
"""How long the end of a store waits for this rank's own writing."""


MOMENT = 1.0
"""Seconds that the writing thread may take to give up and clear away, beyond its time-outs."""


@dataclass(frozen=True)
class _Job:
    step: int
    number: int
    meta: Mapping[str, Any]
    folder: Path
    target: Path
    started: float
    label: str | None


class CheckpointStore:
    """Saves and finds the checkpoints of a run; each rank has one, and all call `save` for the same steps.

    `save` copies the tensors to host memory and returns; a thread writes them. At most one save is under way: the next
    one waits for it. What goes wrong in the thread is raised by the next `poll`, `save` or `wait` of that rank as a
    CheckpointError; the half-written folder is gone by then and earlier checkpoints are untouched.

    Args:
        folder: the `checkpoints` folder of the run, one that all ranks see.
        rank: this process.
        world: number of processes that save together.
        attempt: names this start of the run, the same on all ranks and new at every start (needed if world > 1).
            Rank 0 removes the unfinished folders of other attempts, so hold the run's lock before.
        keep_last: newest checkpoints to keep, at least 1.
        keep_every: keeps the steps divisible by it too; 0 for none.
        on_event: hears (kind, step, message), kind "checkpoint" (saved) or "warning" (passed over); called only from
            within the calls of this class, never from the thread.
        timeout: seconds that a rank may take to write its part, and rank 0 to wait for the parts of the others.
    """

    def __init__(
        self,
        folder: Path | str,
        rank: int = 0,
        world: int = 1,
        attempt: str | None = None,
        keep_last: int = 3,
        keep_every: int = 0,
        on_event: OnEvent | None = None,
        timeout: float = 600.0,
    ) -> None:
        if keep_last < 1 or keep_every < 0 or (attempt is None and world > 1) or not 0 <= rank < world:
            raise ValueError(f"{keep_last=}, {keep_every=}, {attempt=}, {rank=}, {world=}")
        self.folder, self.rank, self.world = Path(folder), rank, world
        self.attempt = re.sub(r"[^\w.]", "_", attempt or uuid.uuid4().hex[:12])
        self.blocked_seconds = 0.0
        """Time that the calling thread has spent in `save` and `wait`."""
        self._keep_last, self._keep_every, self._timeout = keep_last, keep_every, timeout
        self._on_event = on_event
        self._events: deque[tuple[str, int, str]] = deque()
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._failed: CheckpointError | None = None
        self._stop = threading.Event()
        self._number = 0
        self._protected = rotation.read_protected(self.folder)
        if rank == 0:
            rotation.clear_unfinished(self.folder, self._living)

    # ------------------------------------------------------------------ saving

    def save(
        self,
        step: int,
        entries: Mapping[str, Entry],
        meta: Mapping[str, Any],
        asynchronous: bool = True,
        label: str | None = None,
    ) -> None:
        """Copies this rank's `entries` and writes them as its part of the checkpoint of `step`.

        Args:
            step: training steps completed.
            entries: intervals by name; over all ranks they must cover each tensor exactly once.
            meta: JSON; rank 0's is kept.
            asynchronous: return after the copy. False waits until this rank's work is done: on rank 0 until the
                checkpoint is complete, on others until their part is written.
            label: protects it, as `protect` does, once it is complete: the one that had the label is kept until then.

        Raises:
            CheckpointError: this save (synchronous) or the one before (then nothing new is begun) failed.
            TypeError, ValueError: `meta` is not JSON, or a tensor's type is not one of the format's.
        """
        frozen = json.loads(json.dumps(dict(meta)))
        with self._blocking():
            self._join()
            self._deliver()
            self._snapshot.take(entries)
            self._number += 1
            folder = self.folder / f"{step_folder(step)}.tmp-{self.attempt}-{self._number}"
            job = _Job(step, self._number, frozen, folder, self.folder / step_folder(step), time.perf_counter(), label)
            self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint-writer", daemon=True)
            self._thread.start()
            if not asynchronous:
                self._join()
                self._deliver()

    def poll(self) -> None:
        """Raises the error of a save that failed, and tells events; returns at once."""
        self._deliver()

    def wait(self) -> None:
        """Waits until nothing is under way; raises the error of a save that failed."""
        with self._blocking():
            self._join()
        self._deliver()

    def close(self, patience: float = 0.0) -> None:
        """Ends a save under way, without raising: after `patience` seconds waiting for other ranks is given up.

        A rank whose own part takes longer still (a disk that hangs) leaves it unfinished.
        """
        if self._thread is not None:
            self._thread.join(patience)
            self._stop.set()
            self._thread.join(max(patience, CLOSING_SECONDS))
            self._thread = None
        self._stop.set()

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._thread is not None and self._thread.is_alive()

    @contextmanager
    def _blocking(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.blocked_seconds += time.perf_counter() - started

    def _join(self) -> None:
        if self._thread is None:
            return
        # Once for its own part, once for those of the other ranks, and a moment to say which of them are missing.
        self._thread.join(2 * self._timeout + MOMENT)
        if self._thread.is_alive():
            raise CheckpointError(
                f"a checkpoint in {self.folder} is still being written after {2 * self._timeout:g} s",
                "a disk that answers",
                "check the file system of run.dir (a network mount that hangs?), or raise parallel.patience_seconds",
            )
        self._thread = None

    def _deliver(self) -> None:
        while self._events:
            event = self._events.popleft()
            if self._on_event is not None:
                self._on_event(*event)
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    # ------------------------------------------------------------------ in the thread

    def _run(self, job: _Job) -> None:
        try:
            writer.yield_to_training()
            writer.write_part(job.folder, self.rank, self._snapshot)
            if self.rank == 0:
                self._complete(job)
        except BaseException as error:
            told = writer.as_checkpoint_error(error, job.folder, self._snapshot.nbytes)
            told.__cause__ = error if told is not error else error.__cause__
            writer.abandon(job.folder, self.rank, told)
            self._failed = told

    def _complete(self, job: _Job) -> None:
        parts = writer.wait_for_parts(job.folder, self.world, self._timeout, self._stop)
        writer.finish(job.folder, job.step, parts, job.meta)
        if not self._already_there(job):
            writer.publish(job.folder, job.target)
            size, seconds = sum(part["bytes"] for part in parts) / 1e6, time.perf_counter() - job.started
            self._events.append(("checkpoint", job.step, f"saved {job.target} ({size:,.1f} MB in {seconds:.1f} s)"))
        if job.label is not None:
            self.protect(job.step, job.label)
        self._rotate(job)

    def _already_there(self, job: _Job) -> bool:
        """Whether a whole checkpoint of this step exists (a resumed run came by again); a damaged one is removed."""
        if not job.target.exists():
            return False
        try:
            problems = Checkpoint(job.target).damage()
        except DamagedCheckpointError as error:
            problems = [error.problem]
        if problems:
            self._remove(job.step, job.number)
            self._events.append(("warning", job.step, f"replaced the damaged {job.target}: {'; '.join(problems)}"))
        return not problems

    def _rotate(self, job: _Job) -> None:
        """Removes what need not be kept, and folders that failed saves left."""
        protected = {job.step, *self._protected.values()}
        # Steps beyond the one just saved belong to a past that this run has left (damaged, passed over): they must not
        # push whole ones out.
        steps = [step for step in self.complete_steps() if step <= job.step]
        for step in rotation.surplus_steps(steps, self._keep_last, self._keep_every, protected):
            self._remove(step, job.number)
        rotation.clear_unfinished(self.folder, self._living)

    def _remove(self, step: int, number: int) -> None:
        name = step_folder(step)
        writer.remove(self.folder / name, self.folder / f"{name}.tmp-removed-{self.attempt}-{number}")

    def _living(self, name: str) -> bool:
        """Whether a temporary folder may be in use: other ranks can be one save ahead of rank 0."""
        own = re.fullmatch(rf"step_\d+\.tmp-{re.escape(self.attempt)}-(\d+)", name)
        return own is not None and int(own[1]) > self._number

    # ------------------------------------------------------------------ finding

    def complete_steps(self) -> list[int]:
        """Steps of the complete checkpoints on disk, ascending (damaged ones among them)."""
        return rotation.complete_steps(self.folder)

    def newest(self, verify: bool = True) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None; damaged ones are passed over with a warning event.

        Hashing reads everything once: let rank 0 do it, agree on the step, and call `open` on all ranks.
        """
        return newest_in(self.folder, verify, self._on_event)

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of `step`; its hashes are not compared."""
        return Checkpoint(self.folder / step_folder(step))

    # ------------------------------------------------------------------ protecting

    def protect(self, step: int, label: str = "best") -> None:
        """Keeps a step from rotation, also after a restart, until `label` is given to another step (rank 0 acts)."""
        self._protected = {**self._protected, label: step}
        if self.rank == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                rotation.write_protected(self.folder, self._protected)
            except OSError as error:
                raise writer.as_checkpoint_error(error, self.folder, 0) from error

    @property
    def protected(self) -> dict[str, int]:
        """Protected steps by label."""
        return dict(self._protected)
