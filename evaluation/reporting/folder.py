"""Reading a run folder while it may still be written to: nothing here trusts that a file is there, whole or sane."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.reporting.table import Table
from evaluation.reporting.values import items, mapping
from evaluation.run_state import run_state
from generative.errors import RunFolderError

MAX_EVENTS = 20_000
MAX_SAMPLE_FILES = 6


@dataclass
class Run:
    """What a run folder says. Each part may be empty."""

    path: Path
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    samples: list[Mapping[str, Any]] = field(default_factory=list)
    train: Table = field(default_factory=Table)
    validation: Table = field(default_factory=Table)
    monitor: Table = field(default_factory=Table)
    along: Table = field(default_factory=Table)
    damaged: int = 0

    @property
    def name(self) -> str:
        """The configuration's name, or else the folder's."""
        config = self.status.get("config")
        return config if isinstance(config, str) and config.strip() else self.path.resolve().name

    @property
    def state(self) -> str:
        """What became of the run, as `generative status` says it."""
        return run_state(self.status, self.outcome, time.time())

    @property
    def updates(self) -> list[str]:
        """Names of the updates that reported a loss."""
        return list(dict.fromkeys(self.train.names("loss") + self.validation.names("loss")))


def read_run(path: Path) -> Run:
    """Everything of a run folder that a report shows; what is missing or damaged stays empty.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not path.is_dir():
        raise RunFolderError(
            f"{path}: no such run folder",
            expected="a folder that `generative train` has written to",
            remedy="give the folder that the command line named when the run began (run.dir)",
        )
    run = Run(path, config=_text(path / "config.yaml"))
    run.environment = mapping(_json(path / "environment.json"))
    run.status = mapping(_json(path / "status.json"))
    run.outcome = mapping(_json(path / "outcome.json"))
    run.evaluation = mapping(_json(path / "evaluation.json"))
    run.samples = list(_samples(path / "samples"))
    for row in _lines(path / "events.jsonl", run):
        run.events.append(row)
        if len(run.events) > 2 * MAX_EVENTS:
            del run.events[:MAX_EVENTS]
    tables = {"train": run.train, "validation": run.validation, "monitor": run.monitor}
    for row in _lines(path / "metrics.jsonl", run):
        table = tables.get(str(row.get("kind")))
        run.damaged += 0 if table is None or table.add(row) else 1
    for row in _lines(path / "evaluations" / "along.jsonl", run):
        run.damaged += 0 if run.along.add(row) else 1
    return run


def plain_path(folder: Path, name: Any) -> Path | None:
    """Where a file that a samples file names should be; None where its name could lead out of the folder."""
    if not isinstance(name, str) or name.startswith(".") or any(char in name for char in "/\\:\0"):
        return None
    return folder / name if name else None


def read_beside(folder: Path, name: Any, limit: int) -> bytes | None:
    """Content of a plain file of a folder; None for anything else, and for more than `limit` bytes."""
    path = plain_path(folder, name)
    try:
        # A link could show a file from elsewhere; a pipe would never end.
        if path is None or path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError):
        return None
    return content if len(content) <= limit else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError):
        return None


def _lines(path: Path, run: Run) -> Iterator[Mapping[str, Any]]:
    """Rows of a JSONL file; lines that are no JSON object (one that is being written) are counted and passed over."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield row
            elif line.strip():
                run.damaged += 1


def _samples(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Sample files, oldest first: the newest, and some of the others spread evenly; not those in samples/asked."""
    paths = sorted(folder.glob("*.json"), key=lambda p: (len(p.name), p.name)) if folder.is_dir() else []
    picks = sorted({round(i) for i in np.linspace(0, len(paths) - 1, min(len(paths), MAX_SAMPLE_FILES))})
    for path in (paths[i] for i in picks):
        content = mapping(_json(path))
        if items(content.get("items")):
            yield content
