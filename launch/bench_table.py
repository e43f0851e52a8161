"""Figures of benchmarks as a table: lines for a terminal, Markdown for a page, on top what they were measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evaluation.quantities import duration
from evaluation.reporting.markup import moment

Figure = Mapping[str, Any]
State = Literal["done", "failed", "interrupted", "not run"]

STANDARD_ERRORS = 1.96
"""Either side of a value that has no interval of its own: its 95 % interval if it is normal."""

HEADER = ("benchmark", "figure", "value", "unit", "95 % interval", "n", "goal", "")

BEGINNING, END = "<!-- table of generative bench -->", "<!-- end of the table -->"
"""In a page that holds more than the table: what is between these lines is replaced."""

PACKAGES = ("generative", "torch", "python")
"""Whose versions are told."""

QUICK_NOTE = "QUICK: fewer repeats and smaller cases, a smoke test and no measurement."


@dataclass(frozen=True)
class Outcome:
    """What became of a benchmark.

    Args:
        name: of the benchmark.
        state: how it ended.
        seconds: that it took.
        time: of its end, seconds since 1970.
        figures: by name; none unless it is done.
        problem: why it is not done.
        environment: what it was measured on and with, where that is known apart from the others'.
    """

    name: str
    state: State = "done"
    seconds: float | None = None
    time: float | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    problem: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(result: Mapping[str, Any]) -> Outcome:
        """What `generative bench NAME --json` wrote."""
        about = result.get("environment") or {}
        figures = result["figures"]
        return Outcome(
            str(result["name"]), "done", result.get("seconds"), about.get("time"), figures, environment=about
        )

    def ended(self) -> str:
        """How it ended, in a line."""
        after = f" after {duration(self.seconds)}" if self.seconds is not None else ""
        return f"{self.state}{after}{f': {self.problem}' if self.problem else ''}"

    def counts(self) -> str:
        """'12 figures, 9 of 10 goals met'."""
        verdicts = [told for figure in self.figures.values() if (told := verdict(figure))]
        goals = f", {verdicts.count('met')} of {len(verdicts)} goals met" if verdicts else ""
        return f"{len(self.figures)} figures{goals}"


@dataclass(frozen=True)
class Measured:
    """Benchmarks that ran on one machine.

    Args:
        outcomes: in the order of the table.
        environment: machine, versions and revision (`launch.environment.measured_on`).
        quick: whether they were run with --quick.
    """

    outcomes: Sequence[Outcome]
    environment: Mapping[str, Any]
    quick: bool


def value_of(figure: Figure) -> float:
    """The value; not a number where there is none, which stands as null in a file."""
    return math.nan if figure["value"] is None else float(figure["value"])


def interval(figure: Figure) -> tuple[float, float] | None:
    """The figure's own interval (bootstrap), or else 1.96 standard errors either side; None where no error is known."""
    low, high, value = figure.get("low"), figure.get("high"), value_of(figure)
    if low is not None and high is not None:
        return float(low), float(high)
    if figure.get("stderr") is None or math.isnan(value):
        return None
    slack = STANDARD_ERRORS * float(figure["stderr"])
    return value - slack, value + slack


def verdict(figure: Figure) -> str:
    """Whether a figure reaches its goal; a miss that its error could explain is called so. Nothing without a goal."""
    goal = figure.get("goal")
    if not goal:
        return ""
    sign, bound = str(goal).split()

    def reaches(value: float) -> bool:
        return value <= float(bound) if sign in ("<", "<=") else value >= float(bound)

    if reaches(value_of(figure)):
        return "met"
    return "missed, within its error" if any(map(reaches, interval(figure) or ())) else "NOT MET"


def facts(measured: Measured) -> dict[str, str]:
    """When, on what, and with what all of it was measured, and what was not."""
    about = measured.environment
    days = sorted({moment(one.time)[:10] for one in measured.outcomes if one.time} - {""})
    versions, git = about.get("versions") or {}, about.get("git") or {}
    gpus = about.get("gpus") or []
    machine = [f"{about.get('cores', '?')} cores ({about.get('machine', '?')})", f"{about.get('memory_gb', '?')} GB"]
    others = [f"{one.name} {told}" for one in measured.outcomes if (told := _otherwise(one, about))]
    left = [one.name for one in measured.outcomes if one.state == "not run"]
    return {
        "measured": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])) or "nothing",
        "machine": ", ".join([*machine, f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"]),
        "versions": ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions),
        "revision": _revision(git),
        **({"otherwise": "; ".join(others)} if others else {}),
        **({"not run": ", ".join(left)} if left else {}),
    }


def _revision(git: Mapping[str, Any]) -> str:
    changed = " with changes that are not committed" if git.get("dirty") else ""
    return f"{str(git.get('revision') or 'unknown')[:10]}{changed}"


def _otherwise(one: Outcome, about: Mapping[str, Any]) -> str:
    """'0a958d9bd1, 2026-11-29, 1 core, torch 2.12.0': what it was measured with, where the whole was not."""
    git, cores = one.environment.get("git") or {}, one.environment.get("cores")
    versions, others = (of.get("versions") or {} for of in (one.environment, about))
    told = []
    if git and git != (about.get("git") or {}):
        told += [_revision(git), moment(one.time)[:10] if one.time else ""]
    if cores and cores != about.get("cores"):
        told.append(f"{cores} core{'s' if cores > 1 else ''}")
    told += [f"{name} {versions[name]}" for name in PACKAGES if name in versions and versions[name] != others.get(name)]
    return ", ".join(filter(None, told))


def text(measured: Measured) -> str:
    """For a terminal: facts, rows, and below them how each figure was measured."""
    lines = [f"{name:<9} {value}" for name, value in facts(measured).items()]
    notes = [f"{name} {', '.join(keys)}: {protocol}" for name, keys, protocol in _protocols(measured)]
    head = [QUICK_NOTE] if measured.quick else []
    return "\n".join([*head, *lines, "", *aligned([HEADER, *_rows(measured)]), *([""] if notes else []), *notes])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    padded = ([f"{c:<{w}}" for c, w in zip(row, widths, strict=False)] for row in rows)
    return ["  ".join([*cells, row[-1]]).rstrip() for cells, row in zip(padded, rows, strict=True)]


def markdown(measured: Measured) -> str:
    """The same as Markdown."""
    lines = [f"**{QUICK_NOTE}**", ""] if measured.quick else []
    lines += [f"- {name}: {_plain(value)}" for name, value in facts(measured).items()]
    times = [f"{one.name} {duration(one.seconds)}" for one in measured.outcomes if one.seconds is not None]
    lines += [f"- time: {', '.join(times)}"] if times else []
    lines += ["", _row([*HEADER[:-1], "reached"]), _row(["---"] * len(HEADER))]
    lines += [_row([*(f"`{name}`" if name else "" for name in row[:2]), *row[2:]]) for row in _rows(measured)]
    notes = [
        f"- `{name}` {', '.join(f'`{key}`' for key in keys)}: {_plain(note)}"
        for name, keys, note in _protocols(measured)
    ]
    lines += ["", "How each was measured:", "", *notes] if notes else []
    return "\n".join(lines) + "\n"


def write_table(path: Path | None, measured: Measured) -> None:
    """The Markdown in a file, where one was asked for; in a page with `BEGINNING` and `END` between these.

    Raises:
        RunFolderError: the file cannot be written.
    """
    from generative.training.runfolder import atomic_write

    if path is None:
        return
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begins, rest = page.partition(f"{BEGINNING}\n")
    _, ends, after = rest.partition(END)
    table = markdown(measured)
    atomic_write(path, f"{before}{begins}\n{table}\n{ends}{after}" if begins and ends else table)


def _rows(measured: Measured) -> Iterator[list[str]]:
    """One row a figure; one in all for a benchmark that has none, unless it was not run."""
    for one in measured.outcomes:
        for key, figure in one.figures.items():
            spread = interval(figure)
            shown = "no error known" if spread is None else f"[{spread[0]:.4g}, {spread[1]:.4g}]"
            goal, unit = str(figure.get("goal") or ""), str(figure.get("unit") or "")
            value = value_of(figure)
            yield [
                one.name,
                key,
                "none" if math.isnan(value) else f"{value:.5g}",
                unit,
                shown,
                str(figure.get("n", "-")),
                goal,
                verdict(figure),
            ]
        if not one.figures and one.state != "not run":
            yield [
                one.name,
                "",
                "",
                "",
                "",
                "",
                "",
                one.ended() if one.state != "done" else "no figures: see its messages",
            ]


def _protocols(measured: Measured) -> Iterator[tuple[str, list[str], str]]:
    """(benchmark, its figures that were measured so, protocol)."""
    for one in measured.outcomes:
        shared: dict[str, list[str]] = {}
        for key, figure in one.figures.items():
            if figure.get("protocol"):
                shared.setdefault(str(figure["protocol"]), []).append(key)
        yield from ((one.name, keys, protocol) for protocol, keys in shared.items())


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(told: str) -> str:
    """Text that Markdown takes for what it is, on one line."""
    return " ".join(told.replace("|", "\\|").replace("<", "&lt;").split())
