"""`generative status`: a table of runs, read from their folders alone (no Ray, no torch, no lock)."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.quantities import clock, duration
from evaluation.run_state import ALIVE, run_state, silence
from generative.errors import RunFolderError
from launch.folder import read_json
from launch.formats import speed

INNER = ("checkpoints", "samples", "evaluations", "logs", "tensorboard")
HEADER = ("run", "state", "step", "loss", "speed", "restarts", "lost", "ETA")


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    folder: Path
    name: str
    status: dict[str, Any]
    outcome: dict[str, Any]
    now: float
    """Seconds since 1970."""

    @property
    def state(self) -> str:
        """What became of it, or "lost" where it should be alive and gives no sign of it."""
        return run_state(self.status, self.outcome, self.now)

    def cells(self) -> tuple[str, ...]:
        """Texts for the columns of `HEADER`."""
        get, going = self.status.get, self.state in ALIVE
        step, steps, loss, eta = get("step"), get("steps"), get("loss"), get("eta_seconds")
        return (
            self.name,
            self.state,
            f"{step:,}/{steps:,}" if isinstance(step, int) and isinstance(steps, int) else "-",
            f"{loss:.4g}" if isinstance(loss, int | float) else "-",
            (speed(self.status) or "-") if going else "-",
            str(get("restarts", 0)),
            f"{get('lost_seconds') or 0:.0f} s",
            clock(eta) if going and isinstance(eta, int | float) else "-",
        )

    def advice(self) -> str:
        """What to know or do about this run; empty where nothing."""
        again = f"go on with: {command(self.folder)}"
        if self.state == "lost":
            silent = duration(silence(self.status, self.now))
            return f"no sign of life for {silent} (host {self.status.get('host', 'unknown')}); {again}"
        if self.state == "interrupted":
            return again
        if self.state == "failed":
            return str(self.outcome.get("problem") or self.status.get("message") or "")
        return f"report {self.folder / 'report.html'}" if (self.folder / "report.html").exists() else ""


def command(folder: Path) -> str:
    """The command that started a run, as it was typed."""
    words = read_json(folder / "environment.json").get("command") or [
        "generative",
        "train",
        str(folder / "config.yaml"),
    ]
    return shlex.join(str(word) for word in words)


def run_folders(root: Path) -> Iterator[Path]:
    """Run folders at or below `root`, by name; what is inside one is not searched."""
    for place, folders, files in os.walk(root):
        if "status.json" in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if name not in INNER and not name.startswith("."))


def find_runs(root: Path, now: float | None = None) -> list[Run]:
    """All runs at or below a folder.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not root.is_dir():
        raise RunFolderError(f"{root}: there is no such folder", "a run folder or a folder of runs", "look at the path")
    now = time.time() if now is None else now
    return [_run(folder, root, now) for folder in run_folders(root)]


def _run(folder: Path, root: Path, now: float) -> Run:
    status = read_json(folder / "status.json")
    name = folder.relative_to(root).as_posix() if folder != root else str(status.get("config") or folder.name)
    return Run(folder, name, status, read_json(folder / "outcome.json"), now)


def table(runs: list[Run]) -> str:
    """The table, with what to do below it."""
    rows = [HEADER, *(run.cells() for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    advice = [f"  {run.name}: {text}" for run in runs if (text := run.advice())]
    return "\n".join([*lines, *([""] if advice else []), *advice])


def show(path: str) -> str:
    """What `generative status PATH` prints."""
    runs = find_runs(Path(path))
    return table(runs) if runs else f"no runs in {path}"
