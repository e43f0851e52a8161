"""Reading files of lines that others append to: what is new, and what came last."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

LAST_LINE_BYTES = 1 << 15
"""A line at the end of a log is looked for in so many bytes."""


class NewLines:
    """Whole lines that have been added to a file since the last look.

    Args:
        path: the file; it need not be there yet.
        from_start: whether what is in it already is news.
    """

    def __init__(self, path: Path, from_start: bool) -> None:
        self.path = path
        self._from_start = from_start
        self._offset = 0 if from_start or not path.exists() else path.stat().st_size

    def read(self) -> list[bytes]:
        """Lines without their ends. Where the file was cut: only those after the cut, or all where all were asked."""
        try:
            size = self.path.stat().st_size
            if size < self._offset:
                self._offset = 0 if self._from_start else size
            if size == self._offset:
                return []
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()


class Tail:
    """New JSON lines of a file that others append to (and may cut)."""

    def __init__(self, path: Path) -> None:
        self._lines = NewLines(path, from_start=False)

    def read(self) -> list[dict[str, Any]]:
        """Whole lines since the last call; only those after the cut where the file was cut."""
        return json_objects(self._lines.read())


def json_objects(lines: list[bytes]) -> list[dict[str, Any]]:
    """The JSON objects among lines; damaged ones are left out."""
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            if isinstance(record := json.loads(line), dict):
                found.append(record)
    return found


def last_line(path: Path) -> dict[str, Any]:
    """The last whole JSON object in a file of JSON lines, from its end alone; {} where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_LINE_BYTES))
            data = file.read()
    except OSError:
        return {}
    found = json_objects(data[: data.rfind(b"\n") + 1].splitlines()[-20:])
    return found[-1] if found else {}
