"""What a person sees while a run goes on: labelled lines, a progress bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from evaluation.quantities import clock, compact
from launch.folder import read_json
from launch.formats import speed
from launch.results import with_error
from launch.tail import Tail

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 10.0
"""Seconds between two lines of progress where there is no terminal."""

SLOWEST_SECONDS = 300.0
"""Seconds between two lines of a long run."""

LAST_STATES = ("evaluating", "complete", "interrupted", "failed")
"""States in which the step, the loss and the checkpoint stay as they are."""


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
        self._began = self._last_line = -math.inf
        self._printed = -1
        self._held_out = ""
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
            self._began = self._clock()
        if kind in ("resume", "restart", "anomaly", "warning", "evaluate"):
            self._console.line(kind, message)

    def _show_record(self, record: dict[str, Any]) -> None:
        first = next(iter((record.get("loss") or {}).values()), None)
        if record.get("kind") == "train":
            self._live = {"step": record.get("step"), "loss": first}
        elif isinstance(first, dict):
            self._held_out = f"held-out {with_error(first)} (step {record.get('step')}, n={first.get('n')})"

    def _show_progress(self, last: bool = False) -> None:
        if self._evaluating:
            return
        status = read_json(self._folder / "status.json")
        last = last or status.get("state") in LAST_STATES
        status |= self._live
        step, steps = status.get("step"), status.get("steps")
        if not isinstance(step, int) or not isinstance(steps, int):
            return
        if self._console.terminal:
            self._console.progress("train", step, steps, self._describe(status, step, steps))
        elif self._printed != step and (last or (0 < step < steps and self._due())):
            # The last line waits for the state that follows: until then status.json is some seconds old.
            self._last_line, self._printed = self._clock(), step
            parts = [f"step {step}/{steps}", self._describe(status, step, steps), self._held_out]
            self._console.line("train", " · ".join(filter(None, parts)))
            self._held_out = ""
        if status.get("state") == "evaluating":
            self._evaluating = True
            self._console.end_progress()
            self._console.line("evaluate", "measuring, drawing samples")

    def _due(self) -> bool:
        """Whether it is time for a line: the first at once, then every ten seconds, less often in a long run."""
        now = self._clock()
        pace = min(max(PLAIN_SECONDS, (now - self._began) / 50), SLOWEST_SECONDS)
        return now - self._last_line >= pace

    def _describe(self, status: dict[str, Any], step: int, steps: int) -> str:
        parts = []
        if isinstance(status.get("loss"), int | float):
            parts.append(f"loss {status['loss']:.3g}")
        parts.append(speed(status))
        left = 0.0 if step == steps else status.get("eta_seconds")
        if isinstance(left, int | float) and (step == steps or status.get("state") not in LAST_STATES):
            parts.append(f"ETA {clock(left)}")
        if status.get("checkpoint"):
            parts.append(f"saved {self._shown}/checkpoints/{status['checkpoint']}")
        return " · ".join(part for part in parts if part)


def bar_progress(console: Console, label: str, unit: str = "") -> Callable[[int, int], None]:
    """A callback for (done, total) that moves a bar, or prints a line every few seconds where there is no terminal."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        text = f"{compact(done)}{unit} of {compact(total)}{unit}"
        if console.terminal:
            console.progress(label, done, total, text)
        elif time.monotonic() - last > PLAIN_SECONDS:
            last = time.monotonic()
            console.line(label, text)

    return progress
