"""Traces of chosen steps with torch.profiler: what each operation costs, the exchange of gradients included."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from generative.errors import RunFolderError
from generative.training.config import ProfileConfig
from generative.training.hooks import Hook, Record
from generative.training.trainer import Trainer

TOP = 10
"""Operations in the text table."""

STEP = "training step "
"""How the steps are marked in a trace."""


class ProfileHook(Hook):
    """Traces ranges of steps into <run>/profile/.

    Each range of steps that follow each other gives two files for each traced rank, step_000010-000012_rank0.json.gz
    (for Perfetto or chrome://tracing) and .txt (the most costly operations). A file that is there is never replaced:
    a run that takes the same steps again writes step_..._rank0.2.json.gz.

    This hook ends what its `opener` begins. Hooks between the two (validation, samples) stay out of the traces, but for
    what falls between two steps of one range.

    Args:
        config: which steps and ranks.
        folder: the run folder.
    """

    def __init__(self, config: ProfileConfig, folder: Path) -> None:
        self.config, self.folder = config, folder / "profile"
        self.opener = _Opener(self)
        self._steps = frozenset(config.chosen())
        self._profiler: Any = None
        self._mark: Any = None
        self._first = 0

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """End the step, and with the last of a range the trace."""
        if self._mark is not None:
            self._mark.__exit__(None, None, None)
            self._mark = None
        if trainer.step in self._steps and (trainer.step + 1 not in self._steps or trainer.step >= trainer.steps):
            # Writing a long trace may take longer than a collective; ranks that trace nothing wait along.
            with trainer.backend.patience.together():
                if self._profiler is not None:
                    self._keep(trainer)

    def on_rewind(self, trainer: Trainer, step: int) -> None:
        """The traced steps are given up: they will be taken again."""
        self.close()

    def on_end(self, trainer: Trainer, state: str) -> None:
        """Keep what an interrupted range has."""
        if self._profiler is not None and trainer.step >= self._first:
            self._keep(trainer)
        self.close()

    def close(self) -> None:
        """End a trace without keeping it."""
        if self._profiler is not None:
            self._profiler.stop()
        self._profiler = self._mark = None

    def begin(self, trainer: Trainer) -> None:
        """Trace the step that follows, if it is chosen."""
        ranks = self.config.ranks
        if trainer.step + 1 not in self._steps or (ranks is not None and trainer.backend.rank not in ranks):
            return
        if self._profiler is None:
            self._first = trainer.step + 1
            self._profiler = _profiler(trainer.backend.device, self.config.memory)
        self._mark = torch.profiler.record_function(f"{STEP}{trainer.step + 1}")
        self._mark.__enter__()

    def _keep(self, trainer: Trainer) -> None:
        profiler, self._profiler, self._mark = self._profiler, None, None
        profiler.stop()
        last = trainer.step
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            steps = f"{self._first:06d}" if last == self._first else f"{self._first:06d}-{last:06d}"
            trace = _free(self.folder, f"step_{steps}_rank{trainer.backend.rank}")
            aside = trace.with_name(f".{trace.name}.{os.getpid()}.json.gz")
            profiler.export_chrome_trace(str(aside))
            os.replace(aside, trace)
            table = trace.with_name(trace.name.replace(".json.gz", ".txt"))
            table.write_text(cost_table(list(profiler.key_averages()), last - self._first + 1, self.config.memory))
        except OSError as error:
            raise RunFolderError(
                f"cannot write the profile of steps {self._first} to {last} into {self.folder}: {error}",
                "a run folder with room",
                "free space there, or set train.profile.steps to null",
            ) from error
        shown = f"step {last}" if last == self._first else f"steps {self._first} to {last}"
        trainer.event("note", f"profiled {shown}: {trace}")


class _Opener(Hook):
    """The last hook: what follows is the next step."""

    def __init__(self, profile: ProfileHook) -> None:
        self._profile = profile

    def on_start(self, trainer: Trainer) -> None:
        """The first step follows."""
        self._profile.begin(trainer)

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """The next step follows, unless this was the last."""
        if trainer.step < trainer.steps:
            self._profile.begin(trainer)


def _profiler(device: torch.device, memory: bool) -> Any:
    """A running profiler of this thread's operations."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # it would tell on standard error that it begins and ends
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities, profile_memory=memory)
    profiler.start()
    return profiler


def _free(folder: Path, stem: str) -> Path:
    """A name that is not taken."""
    path, number = folder / f"{stem}.json.gz", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}.{number}.json.gz"
    return path


def cost_table(averages: Sequence[Any], steps: int, memory: bool = False) -> str:
    """The most costly operations, by their own time (on the GPU where there is one), as text.

    Args:
        averages: `key_averages()` of a profiler.
        steps: that were traced.
        memory: whether allocations were traced.
    """
    gpu = any(item.self_device_time_total for item in averages)

    def time_of(item: Any) -> float:
        return float(item.self_device_time_total if gpu else item.self_cpu_time_total)

    operations = [item for item in averages if not item.key.startswith(STEP)]
    total = sum(map(time_of, operations)) or 1.0
    rows = [("operation", "ms a step", "share", "calls a step", *(["MB a step"] if memory else []))]
    for item in sorted(operations, key=time_of, reverse=True)[:TOP]:
        own = time_of(item)
        allocated = (item.self_device_memory_usage if gpu else item.self_cpu_memory_usage) / 1e6
        rows.append(
            (
                item.key[:60],
                f"{own / 1000 / steps:.3f}",
                f"{100 * own / total:.1f} %",
                f"{item.count / steps:g}",
                *([f"{allocated / steps:.2f}"] if memory else []),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    device = "GPU" if gpu else "CPU"
    lines = [
        f"own {device} time of the {TOP} most costly operations, {steps} step(s), {total / 1000 / steps:.1f} ms a step"
    ]
    for row in rows:
        numbers = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([f"{row[0]:<{widths[0]}}", *numbers]))
    return "\n".join(lines) + "\n"
