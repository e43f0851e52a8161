"""What became of each job: an append-only file of JSON lines, and the right to work on a job.

Lines are appended under a lock and read strictly: a torn last line (a crash) is left out, damage in the middle is an
error, since it could hide a result. The right to work on a job is a lock that is gone with its holder (kill -9 too), so
two drivers share a campaign without doing anything twice; `state/<hash>.json` says who holds it and when it last
gave a sign of life.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generative.errors import DataError, RunFolderError
from generative.training.runfolder import append_line, atomic_write, check_writable, parse_line
from generative.training.runlock import RunLock
from launch.campaign.jobs import Job
from launch.folder import read_json

VERSION = 1
FILE = "ledger.jsonl"

PLANNED, RUNNING, DONE, FAILED, DIVERGED, CANCELLED = "planned", "running", "done", "failed", "diverged", "cancelled"
KINDS = (PLANNED, RUNNING, DONE, FAILED, DIVERGED, CANCELLED)
ENDED = (DONE, DIVERGED)
"""States that a further `campaign run` leaves alone; what failed is tried again."""

STALE_SECONDS = 60.0
"""A job whose driver has been silent for so long is told as lost."""


@dataclass
class Entry:
    """What the ledger says of one job.

    Args:
        name: of the job.
        settings: dotted keys that its hash is made of.
        state: the last that was written.
        cause: of a failure.
        starts: how often it was started.
        result: of a cell that is done.
        spent: FLOPs of steps that are of use.
        wasted: FLOPs lost to restarts, failures and divergence.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: str = PLANNED
    cause: str = ""
    starts: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    spent: float = 0.0
    wasted: float = 0.0


class Ledger:
    """The ledger of a campaign's folder.

    Args:
        folder: of the campaign, seen by all drivers and workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self._held: dict[str, RunLock] = {}

    # ------------------------------------------------------------------ reading

    def entries(self) -> dict[str, Entry]:
        """All jobs by hash, in the order of their planning.

        Raises:
            DataError: a damaged line that is not the last one, or two different results of one cell.
        """
        found: dict[str, Entry] = {}
        for number, line in enumerate(self._lines(), start=1):
            self._take(found, line, number)
        return found

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1].splitlines()
        records = [parse_line(line) for line in whole]
        for number, record in enumerate(records, start=1):
            if record is None or not _sound(record):
                raise DataError(
                    f"{self.path} line {number} of {len(records)} is damaged: {whole[number - 1][:60]!r}",
                    f"lines as `generative campaign run` writes them (version {VERSION})",
                    "restore the file from a copy, or delete that line: a cell whose result stood there is then booked "
                    "again from its own folder, without training",
                )
        return [record for record in records if record is not None]

    def _take(self, found: dict[str, Entry], line: Mapping[str, Any], number: int) -> None:
        kind, key = line["kind"], line["job"]
        if kind == PLANNED and key not in found:
            found[key] = Entry(str(line.get("name")), line.get("settings") or {})
            return
        entry = found.setdefault(key, Entry(str(line.get("name", key))))
        if kind == DONE and entry.state == DONE and entry.result != line.get("result", {}):
            raise DataError(
                f"{self.path} line {number}: the cell {entry.name} has two different results",
                "one result for each cell",
                "delete one of the lines",
            )
        if kind == DONE and entry.state == DONE:
            return
        entry.state, entry.cause = kind, str(line.get("cause") or "")
        entry.starts += kind == RUNNING
        entry.spent += float(line.get("spent") or 0.0)
        entry.wasted += float(line.get("wasted") or 0.0)
        if kind == DONE:
            entry.result = line.get("result") or {}

    # ------------------------------------------------------------------ writing

    def plan(self, jobs: Sequence[Job]) -> list[str]:
        """Enter jobs that are new; returns the names of those that are not in the campaign any more.

        Raises:
            RunFolderError: a cell of that name was planned with other settings; each difference is told.
        """
        check_writable(self.folder)
        with RunLock(self.folder, "ledger").acquire(wait_seconds=30.0):
            known = self.entries()
            self.refuse_changed(jobs, known)
            for job in jobs:
                if job.hash not in known:
                    self.write(PLANNED, job, settings=_settings(job))
        wanted = {job.hash for job in jobs}
        return [entry.name for key, entry in known.items() if key not in wanted]

    def refuse_changed(self, jobs: Sequence[Job], known: Mapping[str, Entry]) -> None:
        """Cells that were planned under the same names with other settings have other results.

        Raises:
            RunFolderError: there is one; each difference is told.
        """
        by_name = {entry.name: entry for entry in known.values()}
        for job in jobs:
            if job.cell is not None and job.hash not in known and job.name in by_name:
                self._refuse(job, by_name[job.name].settings)

    def _refuse(self, job: Job, was: Mapping[str, Any]) -> None:
        settings = _settings(job)
        keys = [key for key in {**was, **settings} if was.get(key) != settings.get(key)]
        listed = ", ".join(f"{key} ({_json(was.get(key))} there, {_json(settings.get(key))} now)" for key in keys[:4])
        raise RunFolderError(
            f"{self.path} has the cell {job.name} with other settings: {listed or 'another trunk'}",
            "the settings that the campaign was begun with (larger budgets, sizes and seeds may be added)",
            "take the change back, or give dir=ANOTHER_FOLDER for a campaign of its own",
        )

    def write(self, kind: str, job: Job, **fields: Any) -> None:
        """One line about a job."""
        line = {"version": VERSION, "kind": kind, "job": job.hash, "name": job.name, "time": time.time()}
        append_line(self.path, line | {key: value for key, value in fields.items() if value not in (None, "")})

    # ------------------------------------------------------------------ the right to work on a job

    def claim(self, job: Job) -> bool:
        """Take the job for this driver; False where another one has it."""
        lock = RunLock(self._states(), job.hash)
        try:
            lock.acquire()
        except RunFolderError as error:
            if "is in use" not in error.problem:
                raise  # the folder cannot be written
            return False
        self._held[job.hash] = lock
        return True

    def beat(self, job: Job, state: str = RUNNING) -> None:
        """Say that this driver is alive and has the job."""
        who = {"host": socket.gethostname(), "pid": os.getpid()}
        text = json.dumps({"state": state, "name": job.name, "lease": who, "heartbeat": time.time()})
        atomic_write(self._states() / f"{job.hash}.json", text, durable=False)

    def release(self, job: Job, state: str) -> None:
        """Give the job back."""
        self.beat(job, state)
        lock = self._held.pop(job.hash, None)
        if lock is not None:
            lock.release()

    def state_of(self, key: str) -> dict[str, Any]:
        """What the job's state file says; {} where there is none."""
        return read_json(self._states() / f"{key}.json")

    def _states(self) -> Path:
        return self.folder / "state"


def _sound(record: Mapping[str, Any]) -> bool:
    """Whether a line says what lines of the ledger say: a flipped bit often leaves JSON that is whole."""
    amounts = [record.get(name, 0.0) for name in ("spent", "wasted")]
    facts = [record.get(name, {}) for name in ("settings", "result")]
    return (
        record.get("version") == VERSION
        and record.get("kind") in KINDS
        and isinstance(record.get("job"), str)
        and all(isinstance(amount, int | float) for amount in amounts)
        and all(isinstance(fact, dict) for fact in facts)
        and _measured(record.get("result", {}))
    )


def _measured(result: Mapping[str, Any]) -> bool:
    """Whether what fits read of a result are numbers."""
    return all(isinstance(result.get(name, 0.0), int | float) for name in ("loss", "N", "D", "C", "seconds"))


def _settings(job: Job) -> dict[str, Any]:
    return dict(job.cell.settings) if job.cell else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def alive(state: Mapping[str, Any], now: float) -> bool:
    """Whether a state file is that of a job whose driver gives signs of life."""
    return state.get("state") == RUNNING and now - float(state.get("heartbeat") or 0) < STALE_SECONDS


def totals(entries: Iterable[Entry]) -> tuple[float, float]:
    """(spent, wasted) FLOPs."""
    listed = list(entries)
    return sum(one.spent for one in listed), sum(one.wasted for one in listed)
