"""`generative logs`: what the parts of a run have printed, merged by time. Reads files only."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from evaluation.run_state import ALIVE, run_state
from generative.errors import RunFolderError
from launch.folder import read_json
from launch.tail import NewLines, json_objects

POLL_SECONDS = 0.5
BAD_EVENTS = ("restart", "anomaly", "rollback", "warning")

_DATED = re.compile(r"\[?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,]\d+)?\]? ?")
_PROCESS = re.compile(r"\(\w+[^)]*\) ")
"""How Ray begins a line that it passes on from another process."""
_GLOG = re.compile(r"(?:\[rank\d+\]:)?\[?[IWEF](\d\d)(\d\d) (\d\d:\d\d:\d\d)")
_WORKER = re.compile(r"worker (\d+): ")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_TROUBLE = re.compile(
    r"\bTraceback\b|\b\w*(?:Error|Exception)\b|\b(?:ERROR|CRITICAL|FATAL|Killed|died)\b|^Fatal |Segmentation fault"
)


@dataclass(frozen=True)
class Entry:
    """Some lines that belong together.

    Args:
        time: seconds since 1970.
        source: who said it.
        lines: without line ends and terminal codes.
        bad: whether it tells of something that went wrong.
    """

    time: float
    source: str
    lines: tuple[str, ...]
    bad: bool


class Events:
    """events.jsonl."""

    def __init__(self, path: Path) -> None:
        self._lines, self._folder = NewLines(path, from_start=True), f"{path.parent.absolute()}/"

    def _short(self, message: str) -> str:
        """Paths in the run folder from there on."""
        return _clean(message.replace(self._folder, ""))

    def read(self) -> list[Entry]:
        """What is new."""
        return [
            Entry(
                float(event.get("time") or 0.0),
                "event",
                (f"{event.get('kind')} at step {event.get('step')}: {self._short(str(event.get('message')))}",),
                event.get("kind") in BAD_EVENTS,
            )
            for event in json_objects(self._lines.read())
        ]


class LogFile:
    """A file of plain lines. One without a time belongs to the line before it, else to the file's last change."""

    def __init__(self, path: Path, all_bad: bool = False) -> None:
        self._lines, self._all_bad = NewLines(path, from_start=True), all_bad
        self._source = path.stem.replace("_", " ").removesuffix(" errors")
        self._time: float | None = None

    def read(self) -> list[Entry]:
        """What is new."""
        lines = [_clean(line.decode(errors="replace")) for line in self._lines.read()]
        if not lines:
            return []
        changed = self._lines.path.stat().st_mtime
        blocks: list[tuple[float, list[str]]] = []
        for line in lines:
            at = _stamp(line, changed)
            if at is None and blocks and not _PROCESS.match(line):
                blocks[-1][1].append(line)
            else:
                blocks.append((at if at is not None else self._time or changed, [line]))
                self._time = blocks[-1][0]
        return [self._entry(at, block) for at, block in blocks]

    def _entry(self, at: float, lines: list[str]) -> Entry:
        while len(lines) > 1 and not lines[-1].strip():
            lines.pop()
        lines[0] = _DATED.sub("", lines[0], count=1) if _DATED.match(lines[0]) else lines[0]
        named = _WORKER.match(lines[0]) if self._all_bad else None
        source = f"worker {named[1]}" if named else self._source
        lines[0] = lines[0].removeprefix(f"{source}: ")
        return Entry(at, source, tuple(lines), self._all_bad or any(map(_TROUBLE.search, lines)))


class Outcome:
    """outcome.json of a run that failed."""

    def __init__(self, path: Path) -> None:
        self._path, self._told = path, False

    def read(self) -> list[Entry]:
        """The error with its remedy, once."""
        outcome = read_json(self._path)
        if self._told or outcome.get("state") != "failed":
            return []
        self._told = True
        names = {"problem": "failed", "expected": "expected", "remedy": "to fix"}
        lines = tuple(f"{label}: {_clean(str(outcome[key]))}" for key, label in names.items() if outcome.get(key))
        return [Entry(self._path.stat().st_mtime, "outcome", lines, True)]


def _clean(text: str) -> str:
    return _ESCAPES.sub("", text.replace("\t", "    ")).rstrip()


def _stamp(line: str, changed: float) -> float | None:
    """The time that a line begins with, in this machine's zone; `changed` tells the year where it does not."""
    if found := _DATED.match(line):
        text = f"{found[1]} {found[2]}"
    elif found := _GLOG.match(line):
        text = f"{time.localtime(changed).tm_year}-{found[1]}-{found[2]} {found[3]}"
    else:
        return None
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return None


class Logs:
    """All logs of a run, or those of one worker.

    Args:
        folder: the run folder.
        worker: only what this worker printed and met; None: everything.
        errors: only what tells of something that went wrong.

    Raises:
        RunFolderError: no run there, or no such worker.
    """

    def __init__(self, folder: Path, worker: int | None = None, errors: bool = False) -> None:
        if not (folder / "status.json").is_file() and not (folder / "events.jsonl").is_file():
            raise RunFolderError(
                f"{folder} is not a run folder (it has no status.json)",
                "a folder that `generative train` has written",
                "`generative status` lists the runs there are",
            )
        self._folder, self._worker, self._errors = folder, worker, errors
        self._sources: dict[Path, Events | LogFile | Outcome] = {}
        workers = sorted(
            int(n) for p in folder.glob("logs/worker_*.log") if (n := p.stem.removeprefix("worker_")).isdigit()
        )
        if worker is not None and worker not in workers:
            listed = ", ".join(map(str, workers))
            raise RunFolderError(
                f"{folder} has no log of worker {worker}",
                f"one of the workers {listed}" if workers else "a run whose workers are processes of their own",
                "correct --worker, or leave it out",
            )

    def read(self) -> list[Entry]:
        """What is new, by time."""
        self._look_for_files()
        entries = [entry for source in list(self._sources.values()) for entry in source.read() if self._wanted(entry)]
        return sorted(entries, key=lambda entry: entry.time)

    def _look_for_files(self) -> None:
        logs = self._folder / "logs"
        if not self._sources:
            events, outcome = self._folder / "events.jsonl", self._folder / "outcome.json"
            self._sources |= {events: Events(events), outcome: Outcome(outcome)}
        for path in sorted([*logs.glob("*.log"), *logs.glob("traceback-*.txt")]):
            if path not in self._sources:
                self._sources[path] = LogFile(path, all_bad=path.name == "worker_errors.log" or path.suffix == ".txt")

    def _wanted(self, entry: Entry) -> bool:
        theirs = self._worker is None or entry.source == f"worker {self._worker}"
        return theirs and (entry.bad or not self._errors)


def text(entries: Iterable[Entry], last_day: str = "") -> Iterator[str]:
    """Entries as lines with time and source in front; a line of its own where a day begins."""
    for entry in entries:
        local = time.localtime(entry.time)
        day = time.strftime("%Y-%m-%d", local)
        if day != last_day:
            last_day = day
            yield f"-- {day}"
        for line in entry.lines:
            yield f"{time.strftime('%H:%M:%S', local)} {entry.source:<9} {line}".rstrip()


def show(logs: Logs, folder: Path, lines: int, follow: bool, stream: TextIO, sleep: Callable[[float], None]) -> None:
    """Print the last lines, and go on with new ones until the run has ended or Ctrl-C.

    Args:
        logs: of the run.
        folder: the run folder.
        lines: how many of those that are there already; 0 for all.
        follow: whether to go on.
        stream: where to.
        sleep: waits between two looks.
    """
    entries = logs.read()
    found = list(text(entries))
    kept = found[-lines:] if lines else found
    if not kept and not follow:
        print(f"nothing in the logs of {folder}", file=stream)
    day = time.strftime("%Y-%m-%d", time.localtime(entries[-1].time)) if entries else ""
    _print(kept, stream)
    while follow:
        state = run_state(read_json(folder / "status.json"), read_json(folder / "outcome.json"), time.time())
        entries = logs.read()
        _print(text(entries, day), stream)
        day = time.strftime("%Y-%m-%d", time.localtime(entries[-1].time)) if entries else day
        if state not in ALIVE:
            print(f"-- the run is {state}", file=stream, flush=True)
            return
        sleep(POLL_SECONDS)


def _print(lines: Iterable[str], stream: TextIO) -> None:
    for line in lines:
        print(line, file=stream, flush=True)
