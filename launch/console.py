"""What a person sees while a run goes on: labelled lines, a progress bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from launch.folder import read_json
from launch.formats import duration, short, speed

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 5.0
"""Seconds between two lines of progress where there is no terminal."""


class Console:
    """Lines with a label in front, on a stream of its own.

    Args:
        stream: where to; None: a copy of standard output, which goes on when file descriptor 1 is redirected.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or _own_stdout()
        self.terminal = self.stream.isatty()
        self.bar: Bar | None = None

    def line(self, label: str, text: str) -> None:
        """One labelled line; above the bar, if one is shown."""
        if not self.terminal:
            print(f"{label:<7} {text}", file=self.stream, flush=True)
            return
        from rich.console import Console as RichConsole
        from rich.markup import escape

        target = self.bar.console if self.bar else RichConsole(file=self.stream, highlight=False)
        target.print(f"[bold]{escape(f'{label:<7}')}[/] {escape(text)}", soft_wrap=True, highlight=False)

    def progress(self, label: str, done: int, total: int, text: str) -> None:
        """Moves the bar (terminals only)."""
        if self.terminal:
            self.bar = self.bar or Bar(self.stream, label)
            self.bar.move(done, total, text)

    def end_progress(self) -> None:
        """Leaves the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _own_stdout() -> TextIO:
    """A copy of standard output if it is the process's own, `sys.stdout` where that was replaced (tests)."""
    try:
        if sys.stdout.fileno() != 1:
            return sys.stdout
    except (OSError, ValueError, AttributeError):
        return sys.stdout
    return os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace", buffering=1)


class Bar:
    """One rich progress bar."""

    def __init__(self, stream: TextIO, label: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = RichConsole(file=stream, highlight=False)
        self._label = label
        self._progress: Progress = Progress(
            TextColumn("[bold]{task.description:<7}[/]"),
            TextColumn("{task.fields[count]}"),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[text]}", markup=False),
            console=self.console,
            auto_refresh=False,
        )
        self._task: TaskID = self._progress.add_task(label, count="", text="")
        self._progress.start()

    def move(self, done: int, total: int, text: str) -> None:
        """Shows a new state."""
        count = f"step {done}/{total}" if self._label == "train" else f"{done / max(total, 1):.0%}"
        self._progress.update(self._task, completed=done, total=max(total, 1), count=count, text=text, refresh=True)

    def close(self) -> None:
        """Stops drawing."""
        self._progress.stop()


class Tail:
    """New JSON lines of a file that others append to (and may cut)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read(self) -> list[dict[str, Any]]:
        """Whole lines since the last call; only those after the cut where the file was cut."""
        try:
            size = self._path.stat().st_size
            if size <= self._offset:
                self._offset = size
                return []
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for record in map(_parse, whole.splitlines()) if record]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Follower:
    """Shows what happens in a run folder; reads files only, so it serves every backend.

    Args:
        folder: the run folder; what is in it already is old news.
        shown: the folder as the user named it.
        console: where to.
        clock: seconds, for the pace of plain lines.
    """

    def __init__(self, folder: Path, shown: str, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._shown, self._console, self._clock = folder, shown, console, clock
        self._events, self._metrics = Tail(folder / "events.jsonl"), Tail(folder / "metrics.jsonl")
        self._last_line = -PLAIN_SECONDS
        self._printed = -1
        self._live: dict[str, Any] = {}
        self._evaluating = False
        self.started = False
        """Whether a worker has taken up the run."""

    def poll(self) -> None:
        """Shows what is new; call it a few times a second."""
        for event in self._events.read():
            self._show_event(event)
        for record in self._metrics.read():
            self._show_record(record)
        if self.started:
            self._show_progress()

    def close(self) -> None:
        """Shows the rest."""
        self.poll()
        if self.started and not self._evaluating:
            self._show_progress(last=True)
        self._console.end_progress()

    def _show_event(self, event: dict[str, Any]) -> None:
        kind, message = str(event.get("kind")), str(event.get("message", ""))
        if kind in ("start", "resume"):
            self.started, self._evaluating, self._live = True, False, {}
        if kind in ("resume", "restart", "anomaly", "warning", "evaluate"):
            self._console.line(kind, message)

    def _show_record(self, record: dict[str, Any]) -> None:
        losses = record.get("loss") or {}
        first = next(iter(losses.values()), None)
        if record.get("kind") == "train":
            self._live = {"step": record.get("step"), "loss": first}
        elif isinstance(first, dict) and not self._console.terminal:
            value, error = first.get("value"), first.get("stderr")
            spread = f" ± {error:.2g}" if isinstance(error, float) else ""
            held_out = f"{value:.4g}{spread} (n={first.get('n')})" if isinstance(value, float) else "not finite"
            self._console.line("held-out", f"step {record.get('step')} · loss {held_out}")

    def _show_progress(self, last: bool = False) -> None:
        if self._evaluating:
            return
        status = read_json(self._folder / "status.json") | self._live
        step, steps = status.get("step"), status.get("steps")
        if not isinstance(step, int) or not isinstance(steps, int):
            return
        text = self._describe(status)
        if self._console.terminal:
            self._console.progress("train", step, steps, text)
        else:
            self._show_line(step, steps, text, last)
        if status.get("state") == "evaluating":
            self._evaluating = True
            self._console.end_progress()
            self._console.line("evaluate", "measuring on held-out data, drawing samples")

    def _show_line(self, step: int, steps: int, text: str, last: bool) -> None:
        """Progress without a terminal."""
        due = self._clock() - self._last_line >= PLAIN_SECONDS or step == steps or last
        if due and self._printed != step:
            self._last_line, self._printed = self._clock(), step
            self._console.line("train", " · ".join(filter(None, (f"step {step}/{steps}", text))))

    def _describe(self, status: dict[str, Any]) -> str:
        parts = []
        if isinstance(status.get("loss"), int | float):
            parts.append(f"loss {status['loss']:.3g}")
        parts.append(speed(status))
        if isinstance(status.get("eta_seconds"), int | float):
            parts.append(f"ETA {duration(status['eta_seconds'])}")
        if status.get("checkpoint"):
            parts.append(f"saved {self._shown}/checkpoints/{status['checkpoint']}")
        return " · ".join(part for part in parts if part)


def bar_progress(console: Console, label: str, unit: str = "") -> Callable[[int, int], None]:
    """A callback for (done, total) that moves a bar, or prints a line every few seconds where there is no terminal."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        text = f"{short(done)}{unit} of {short(total)}{unit}"
        if console.terminal:
            console.progress(label, done, total, text)
        elif time.monotonic() - last > PLAIN_SECONDS:
            last = time.monotonic()
            console.line(label, text)

    return progress
