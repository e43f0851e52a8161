"""`generative status`: how runs stand, read from their folders alone (no Ray, no torch, no lock)."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.quantities import clock, duration
from evaluation.run_state import ALIVE, run_state, silence
from generative.errors import RunFolderError
from launch.folder import read_json
from launch.formats import speed
from launch.tail import last_line

INNER = ("checkpoints", "samples", "evaluations", "logs", "profile", "tensorboard")

HEADER = ("run", "state", "step", "done", "loss", "speed", "workers", "restarts", "lost", "ETA", "last message")

ORDER = (*ALIVE, "lost", "failed", "interrupted", "complete")
"""States in the order of the table; others come last."""


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    folder: Path
    name: str
    status: dict[str, Any]
    outcome: dict[str, Any]
    now: float
    """Seconds since 1970."""
    event: dict[str, Any] = field(default_factory=dict)
    """The last line of events.jsonl."""

    @property
    def state(self) -> str:
        """What became of it, or "lost" where it should be alive and gives no sign of it."""
        return run_state(self.status, self.outcome, self.now)

    @property
    def alive(self) -> bool:
        """Whether something is going on."""
        return self.state in ALIVE

    def cells(self) -> dict[str, str]:
        """Texts for the columns of `HEADER`."""
        get, going = self.status.get, self.alive
        step, steps, loss, eta = get("step"), get("steps"), get("loss"), get("eta_seconds")
        count = f"{step:,}/{steps:,}" if isinstance(step, int) and isinstance(steps, int) else "-"
        done = (
            f"{step / steps:.0%}".replace("%", " %")
            if isinstance(step, int) and isinstance(steps, int) and steps
            else "-"
        )
        lost = float(get("lost_seconds") or 0.0)
        return {
            "run": self.name,
            "state": self.state,
            "step": count,
            "done": done,
            "loss": f"{loss:.4g}" if isinstance(loss, int | float) else "-",
            "speed": (speed(self.status) or "-") if going else "-",
            "workers": str(get("world", "-")) if going else "-",
            "restarts": str(get("restarts", 0)),
            "lost": f"{lost:.2g} s" if lost < 9.5 else f"{lost:,.0f} s",
            "ETA": clock(eta) if going and isinstance(eta, int | float) else "-",
            "last message": self.message(),
        }

    def message(self) -> str:
        """The last thing that it said, paths from its folder on, and how long ago."""
        said = str(self.event.get("message") or "").replace(f"{self.folder.absolute()}/", "")
        when = self.event.get("time")
        age = f" ({duration(max(1, round(self.now - when)))} ago)" if said and isinstance(when, int | float) else ""
        return f"{said}{age}"

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

    def to_json(self) -> dict[str, Any]:
        """All that is known of it, for programs."""
        return {
            "run": self.name,
            "folder": str(self.folder),
            "state": self.state,
            "status": self.status,
            "outcome": self.outcome or None,
            "last_event": self.event or None,
            "advice": self.advice(),
        }


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
    return folders_with(root, ("status.json",))


def folders_with(root: Path, names: Collection[str]) -> Iterator[Path]:
    """Folders at or below `root`, by name, with a file of one of these names; what is inside one is not searched."""
    for place, folders, files in os.walk(root):
        if any(name in files for name in names):
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if name not in INNER and not name.startswith("."))


def find_runs(root: Path, now: float | None = None) -> list[Run]:
    """All runs at or below a folder, those that are alive first, then by state and name.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not root.is_dir():
        raise RunFolderError(
            f"{root}: there is no such folder",
            "a run folder or a folder of runs",
            "correct the path; or train a first run: generative train masked_diffusion/quickstart",
        )
    now = time.time() if now is None else now
    return sorted((_run(folder, root, now) for folder in run_folders(root)), key=_place)


def _place(run: Run) -> tuple[int, str]:
    return (ORDER.index(run.state) if run.state in ORDER else len(ORDER), run.name)


def _run(folder: Path, root: Path, now: float) -> Run:
    status = read_json(folder / "status.json")
    name = folder.relative_to(root).as_posix() if folder != root else str(status.get("config") or folder.name)
    outcome, event = read_json(folder / "outcome.json"), last_line(folder / "events.jsonl")
    return Run(folder, name, status, outcome, now, event)
