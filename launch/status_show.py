"""Showing the table of `generative status`: once, as JSON, or again and again."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from evaluation.quantities import clock
from launch.status import Run, find_runs
from launch.status_table import styled, table

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_SECONDS = 1.0
PLAIN_SECONDS = 10.0
"""Between two lines about a run where there is no terminal."""


def show(path: str, stream: TextIO | None = None) -> None:
    """Print the table: as wide as the terminal, or whole where there is none."""
    stream = stream or sys.stdout
    runs = find_runs(Path(path))
    if runs and stream.isatty():
        from rich.console import Console

        console = Console(file=stream, highlight=False)
        console.print(styled(runs, console.width), soft_wrap=True)
    else:
        print(table(runs) if runs else f"no runs in {path}", file=stream)


def as_json(path: str) -> str:
    """All that is known of the runs."""
    return json.dumps([run.to_json() for run in find_runs(Path(path))], indent=1, ensure_ascii=False)


def watch(path: str, stream: TextIO | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show how runs stand until none is alive any more, or until Ctrl-C; says why it ended."""
    stream = stream or sys.stdout
    find_runs(Path(path))
    try:
        (_watch_live if stream.isatty() else _watch_plain)(Path(path), stream, sleep)
    except KeyboardInterrupt:
        return
    print("no run is alive", file=stream, flush=True)


def _watch_live(root: Path, stream: TextIO, sleep: Callable[[float], None]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, highlight=False)
    with Live(console=console, auto_refresh=False, transient=False, vertical_overflow="ellipsis") as live:
        while True:
            runs = find_runs(root)
            live.update(_picture(root, runs), refresh=True)
            if not any(run.alive for run in runs):
                return
            sleep(EVERY_SECONDS)


def _picture(root: Path, runs: list[Run]) -> RenderableType:
    width = shutil.get_terminal_size().columns
    return styled(runs, width) if runs else f"no runs in {root}"


def _watch_plain(root: Path, stream: TextIO, sleep: Callable[[float], None]) -> None:
    """One line about a run when its state changes, and every ten seconds while it is alive."""
    told: dict[str, tuple[str, float]] = {}
    while True:
        runs = find_runs(root)
        for run in runs:
            state, when = told.get(run.name, ("", 0.0))
            if run.state != state or (run.alive and run.now - when >= PLAIN_SECONDS):
                told[run.name] = run.state, run.now
                print(_line(run), file=stream, flush=True)
        if not any(run.alive for run in runs):
            return
        sleep(EVERY_SECONDS)


def _line(run: Run) -> str:
    """A run in one line of plain text."""
    cells = run.cells()
    parts = [time.strftime("%H:%M:%S", time.localtime(run.now)), run.name, run.state, f"step {cells['step']}"]
    parts += [f"loss {cells['loss']}"] if cells["loss"] != "-" else []
    if run.alive:
        eta = run.status.get("eta_seconds")
        parts += [cells["speed"]] if cells["speed"] != "-" else []
        parts += [f"ETA {clock(eta)}"] if isinstance(eta, int | float) else []
    if cells["restarts"] != "0":
        parts.append(f"restarts {cells['restarts']}, lost {cells['lost']}")
    return " · ".join([*parts, *([advice] if (advice := run.advice()) and not run.alive else [])])
