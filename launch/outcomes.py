"""How commands over many files end: what failed and what to do, and one line of counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from launch.console import Console


class Outcome(Protocol):
    """What became of many files: records of those done, how many were there already, and "name: reason" of the rest."""

    @property
    def done(self) -> Sequence[Any]: ...
    @property
    def kept(self) -> int: ...
    @property
    def failed(self) -> Sequence[str]: ...


def tell_outcome(console: Console, label: str, did: str, found: Outcome, details: Sequence[str]) -> None:
    """Which files failed and what to do, then one line: "3 restored · 1 failed", with details where any was done."""
    for failure in found.failed:
        console.line("failed", failure)
    if found.failed:
        console.line("to fix:", "mend or remove these files and give the command again; what is done stays")
    counts = [f"{len(found.done):,} {did}"]
    counts += [f"{found.kept:,} there already"] if found.kept else []
    counts += [f"{len(found.failed):,} failed"] if found.failed else []
    console.line(label, " · ".join([*counts, *(details if found.done else [])]))


def cost_details(done: Sequence[Mapping[str, Any]], seconds: float, of: str) -> list[str]:
    """Rows and vjps `of` a sample or an image, by the first record, and the time of all."""
    cost = done[0]["cost"] if done else {}
    paper = f" (a paper's NFE: {cost['paper_nfe']:g})" if "paper_nfe" in cost else ""
    return [f"{cost['rows']:g} rows and {cost['vjps']:g} vjps {of}{paper}", f"{seconds:.1f} s"] if cost else []
