"""What a run leaves in its folder while it goes on: metrics.jsonl, events.jsonl, status.json, trackers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from generative.errors import RunFolderError
from generative.training.hooks import Hook, Record
from generative.training.records import VERSION, event_line
from generative.training.runfolder import append_line, atomic_write, read_lines, truncate_lines
from generative.training.throughput import Pace, Peak, device_memory_gb, host_memory_gb, peak_rate
from generative.training.timing import StepClock
from generative.training.trainer import Trainer

HEARTBEAT_SECONDS = 2.0


class Tracker(Protocol):
    """An experiment tracker besides the files."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MonitorHook(Hook):
    """Writes the run folder; only rank 0 does so.

    Args:
        folder: the run folder.
        batch_flops: FLOPs of one training step over the global batch (for MFU); None where unknown.
        tokens_per_sample: for tokens per second; None where samples are not made of tokens.
        status: further fields of status.json (attempt, restarts, configuration name).
        trackers: makes the optional trackers, on rank 0.
    """

    def __init__(
        self,
        folder: Path,
        batch_flops: float | None = None,
        tokens_per_sample: int | None = None,
        status: Mapping[str, Any] | None = None,
        trackers: Callable[[], list[Tracker]] = list,
    ) -> None:
        self.folder, self.batch_flops, self.tokens_per_sample = folder, batch_flops, tokens_per_sample
        begin = {"version": VERSION, "state": "starting", "step": 0, "started": time.time()}
        self._status: dict[str, Any] = {**begin, **(status or {})}
        self._make_trackers = trackers
        self._trackers: list[Tracker] = []
        self._peak: Peak | None = None
        self._pace, self._clock = Pace(), StepClock()
        self._last_step = self._last_samples = self._skipped = 0
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._memory: float | None = None
        self._closed = threading.Event()
        self.active = False

    def on_start(self, trainer: Trainer) -> None:
        """Begin to write, on rank 0."""
        self.active = trainer.backend.rank == 0
        if not self.active:
            return
        self._trackers = self._make_trackers()
        self._peak = peak_rate(trainer.backend.device, trainer.config.precision)
        self._clock.attach(trainer)
        self._last_step, self._last_samples = trainer.step, trainer.samples
        measured = {"peak_flops": self._peak.flops, "peak_source": self._peak.source} if self._peak else {}
        self.status(
            state="running", step=trainer.step, steps=trainer.steps, world=trainer.backend.world, message="", **measured
        )
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()
        if trainer.step:
            self.event("resume", trainer.step, f"goes on from step {trainer.step} of {trainer.steps}")
        else:
            self.event("start", 0, f"{trainer.steps} steps with {trainer.backend.world} worker(s)")

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """One line of metrics."""
        if not self.active:
            return
        if record is not None:
            self._complete(trainer, record)
            append_line(self.folder / "metrics.jsonl", record)
            counts = {key: self._status[key] for key in ("restarts", "lost_seconds") if key in self._status}
            for tracker in self._trackers:
                tracker.log(trainer.step, scalars(record) | counts)
            speed = self._pace.samples_per_second
            with self._lock:
                self._status |= {
                    "step": trainer.step,
                    "loss": next(iter(record["loss"].values()), None),
                    "samples_per_second": speed,
                    "tokens_per_second": self._per_token(speed),
                    **{key: record[key] for key in ("eta_seconds", "mfu", "host_memory_gb", "device_memory_gb")},
                }
        self._clock.step_ended()

    def _complete(self, trainer: Trainer, record: Record) -> None:
        """Add the version, speed in tokens, MFU, where the time went, time left and memory."""
        steps, self._last_step = trainer.step - self._last_step, trainer.step
        samples, self._last_samples = trainer.samples - self._last_samples, trainer.samples
        self._pace.add(samples, record["seconds"])
        if self.tokens_per_sample:
            record["tokens"] = record["samples"] * self.tokens_per_sample
            record["tokens_per_second"] = self._per_token(record["samples_per_second"])
        mfu = None
        if self._peak and self.batch_flops:
            mfu = self.batch_flops * steps / record["seconds"] / (self._peak.flops * trainer.backend.world)
        left = (trainer.steps - trainer.step) * ((trainer.samples - self._skipped) / trainer.step)
        record |= {
            "version": VERSION,
            "split": self._clock.take(record["seconds"]),
            "mfu": mfu,
            "eta_seconds": self._pace.seconds_for(round(left)),
            "host_memory_gb": self._memory or host_memory_gb(),
            "device_memory_gb": device_memory_gb(trainer.backend.device),
            "checkpoint_seconds": trainer.store.blocked_seconds if trainer.store is not None else 0.0,
        }

    def _per_token(self, speed: float | None) -> float | None:
        return speed * self.tokens_per_sample if speed is not None and self.tokens_per_sample else None

    def on_validation(self, trainer: Trainer, record: Record) -> None:
        """One line of metrics."""
        self._line(trainer, record, {f"validation/{u}": loss["value"] for u, loss in record["loss"].items()})

    def on_measurement(self, trainer: Trainer, record: Record) -> None:
        """One line of metrics."""
        self._line(trainer, record, {f"monitor/{name}": value for name, value in record["metrics"].items()})

    def _line(self, trainer: Trainer, record: Record, values: Mapping[str, float]) -> None:
        """A record as it is, and its numbers for the trackers."""
        if self.active:
            append_line(self.folder / "metrics.jsonl", {"version": VERSION, **record})
            for tracker in self._trackers:
                tracker.log(trainer.step, values)

    def on_checkpoint(self, trainer: Trainer, step: int) -> None:
        """Say that one is being written."""
        if self.active:
            self.status(checkpoint=f"step_{step:06d}")

    def on_rewind(self, trainer: Trainer, step: int) -> None:
        """Lines beyond the step belong to steps that will be taken again."""
        if trainer.backend.rank == 0:
            truncate_lines(self.folder / "metrics.jsonl", lambda line: int(line.get("step", 0)) <= step)
            self._last_step, self._last_samples = step, trainer.samples
            self._clock.restart()

    def on_event(self, trainer: Trainer, kind: str, message: str) -> None:
        """Keep it."""
        if trainer.backend.rank == 0:
            self.event(kind, trainer.step, message)
        if kind == "rollback":  # the samples that were skipped took no time
            self._skipped += trainer.samples - self._last_samples
            self._last_samples = trainer.samples

    def on_end(self, trainer: Trainer, state: str) -> None:
        """The last word on training; evaluation may follow."""
        if self.active:
            self.event("complete" if state == "complete" else "stop", trainer.step, f"training {state}")
            self._close_trackers()
            done = state == "complete"
            self.status(state="evaluating" if done else state, step=trainer.step, eta_seconds=0.0 if done else None)

    def event(self, kind: str, step: int, message: str) -> None:
        """One line of events.jsonl."""
        append_line(self.folder / "events.jsonl", event_line(kind, step, message))

    def status(self, **fields: Any) -> None:
        """Replace status.json."""
        with self._writing:  # not the lock that `on_step` takes: a slow disk must not hold up training
            with self._lock:
                self._status |= fields
                self._status |= {"heartbeat": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
                text = _json(self._status)
            atomic_write(self.folder / "status.json", text, durable=False)

    @property
    def step(self) -> int:
        """The step in status.json."""
        return int(self._status["step"])

    def finish(self, **fields: Any) -> None:
        """Write the final status and end the heartbeat."""
        self._closed.set()
        if self.active:
            self.status(**fields)

    def stop_beating(self) -> None:
        """End the heartbeat and the trackers; the last status stays."""
        self._closed.set()
        self._close_trackers()

    def _close_trackers(self) -> None:
        while self._trackers:
            self._trackers.pop().close()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            self._memory = host_memory_gb()
            with contextlib.suppress(RunFolderError):  # a full disk now may have room at the next beat
                self.status()


def lost_work(folder: Path, step: int) -> tuple[int, float]:
    """Steps and seconds of training in metrics.jsonl beyond `step`: what a restart from it has to do again."""
    lines = [r for r in read_lines(folder / "metrics.jsonl") if r.get("kind") == "train" and int(r["step"]) > step]
    return len({r["step"] for r in lines}), float(sum(r["seconds"] for r in lines))


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record for trackers: "loss/denoise", "masked_fraction/denoise", "samples_per_second", ..."""
    values = {f"{kind}/{u}": v for kind in ("loss", "grad_norm", "lr") for u, v in record[kind].items()}
    values |= {f"{name}/{u}": v for u, metrics in record["metrics"].items() for name, v in metrics.items()}
    values |= {f"split/{part}": seconds for part, seconds in record.get("split", {}).items()}
    values |= {name: v for name, v in record.items() if name not in ("kind", "step", "time", "version")}
    return {name: v for name, v in values.items() if isinstance(v, int | float)}


def _json(value: Any) -> str:
    import json

    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
