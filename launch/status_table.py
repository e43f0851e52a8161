"""The table of `generative status`, for any width: what does not fit beside each other goes below, or goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from launch.status import HEADER, Run

if TYPE_CHECKING:
    from rich.text import Text

MESSAGE = "last message"
MIN_MESSAGE = 34
"""Characters that a message in the table must have at least."""

MIN_NAME = 24
"""Characters of a name that are shown at least before columns leave."""

LEAVING = ("done", "workers", "lost", "restarts", "speed", "loss", "ETA")
"""Columns that leave a narrow table, in this order."""

NUMBERS = ("step", "done", "loss", "workers", "restarts", "lost", "ETA")
"""Columns that are flush right."""

MAX_REPORTS = 8
"""More runs than this, and the reports of complete ones are not listed."""

STYLES = {
    "running": "green",
    "starting": "green",
    "evaluating": "green",
    "lost": "bold red",
    "failed": "bold red",
    "interrupted": "yellow",
    "complete": "dim",
}

Rows = list[list[str]]
"""Cells with their padding: the header, then one row for each run."""


def table(runs: Sequence[Run], width: int | None = None) -> str:
    """The table, with what to do below it.

    Args:
        runs: in the order of the table.
        width: columns of the terminal; None: as wide as it gets.
    """
    return "\n".join(("  " + "  ".join(row)).rstrip() if isinstance(row, list) else row for row in _lines(runs, width))


def styled(runs: Sequence[Run], width: int) -> Text:
    """The table for a terminal."""
    from rich.text import Text

    text = Text(no_wrap=False)
    for number, row in enumerate(_lines(runs, width)):
        cells = ["  " + "  ".join(row)] if isinstance(row, list) and not number else row
        if isinstance(cells, str):
            text.append(f"{cells}\n")
            continue
        for column, cell in enumerate(cells):
            style = "bold" if not number else STYLES.get(cell.strip(), "") if column == 1 else ""
            text.append(cell if not number else f"  {cell}", style)
        text.append("\n")
    text.rstrip()
    return text


def _lines(runs: Sequence[Run], width: int | None) -> Iterator[list[str] | str]:
    """Rows of the table as lists of cells, then plain lines below it."""
    columns, rows = _layout(runs, width)
    yield from rows
    notes = [f"  {run.name}: {note}" for run in runs if (note := _note(run, len(runs), MESSAGE in columns))]
    if notes:
        yield ""
        yield from notes


def _note(run: Run, count: int, has_message: bool) -> str:
    """What stands below the table about a run."""
    if run.state == "complete" and count > MAX_REPORTS:
        return ""
    return run.advice() or (run.message() if run.alive and not has_message else "")


def _layout(runs: Sequence[Run], width: int | None) -> tuple[list[str], Rows]:
    """The columns that fit, and the cells in their widths."""
    cells = [{name: name for name in HEADER}, *(run.cells() for run in runs)]
    widths = {name: max(len(row[name]) for row in cells) for name in HEADER}
    columns = list(HEADER)

    def room() -> int:
        """Columns that are left over; what is missing is below 0."""
        return 10**6 if width is None else width - sum(widths[name] + 2 for name in columns)

    empty = [name for name in LEAVING if all(row[name] in ("-", "0", "0 s") for row in cells[1:])]
    if width is not None and room() < 0:
        widths["run"] = min(widths["run"], max(MIN_NAME, width // 3))
    if room() < 0:
        widths[MESSAGE] = max(min(widths[MESSAGE], MIN_MESSAGE), widths[MESSAGE] + room())
    for name in dict.fromkeys((*empty, MESSAGE, *LEAVING)):
        if room() < 0:
            columns.remove(name)
    if MESSAGE in columns and width is not None:
        widths[MESSAGE] = min(max(len(row[MESSAGE]) for row in cells), widths[MESSAGE] + max(0, room()))
    if room() < 0:
        widths["run"] = max(len("run"), widths["run"] + room())
    return columns, [[_fit(row[name], widths[name], name) for name in columns] for row in cells]


def _fit(text: str, width: int, column: str) -> str:
    """A cell of exactly `width` characters; a name that is too long keeps its end, a message its beginning."""
    if len(text) > width:
        text = f"…{text[len(text) - width + 1 :]}" if column == "run" else f"{text[: width - 1]}…"
    return f"{text:>{width}}" if column in NUMBERS else f"{text:<{width}}"
