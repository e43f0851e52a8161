"""`generative bench`: run a benchmark, say which goals are met, leave a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Figure = Mapping[str, Any]

STANDARD_ERRORS = 1.96
"""Either side of a value that has no interval of its own: its 95 % interval if it is normal."""

HEADER = ("figure", "value", "unit", "95 % interval", "n", "goal", "")


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Benchmark; an unknown name lists them.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats: a smoke test, not a measurement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Run a benchmark and compare its figures with their goals."""
    from launch.benchmarks import load
    from launch.environment import describe
    from launch.folder import check_output, write_output

    benchmark = load(name)
    check_output(json, "--json")
    figures = benchmark.run(quick)
    typer.echo(table(figures))
    write_output(json, {"name": name, "environment": describe(), "figures": figures})


def interval(figure: Figure) -> tuple[float, float] | None:
    """The figure's own interval (bootstrap), or else 1.96 standard errors either side; None where no error is known."""
    low, high = figure.get("low"), figure.get("high")
    if low is not None and high is not None:
        return float(low), float(high)
    if figure.get("stderr") is None:
        return None
    slack = STANDARD_ERRORS * float(figure["stderr"])
    return figure["value"] - slack, figure["value"] + slack


def verdict(figure: Figure) -> str:
    """Whether a figure reaches its goal; a miss that its error could explain is called so. Nothing without a goal."""
    goal = figure.get("goal")
    if not goal:
        return ""
    sign, bound = str(goal).split()

    def reaches(value: float) -> bool:
        return value <= float(bound) if sign in ("<", "<=") else value >= float(bound)

    if reaches(figure["value"]):
        return "met"
    return "missed, within its error" if any(map(reaches, interval(figure) or ())) else "NOT MET"


def table(figures: Mapping[str, Figure]) -> str:
    """Figures as lines: value, interval, repeats, goal, verdict; below them how each was measured."""
    rows = [HEADER, *(_row(key, figure) for key, figure in figures.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    protocols = [f"{key}: {figure['protocol']}" for key, figure in figures.items() if figure.get("protocol")]
    return "\n".join([*lines, *([""] if protocols else []), *protocols])


def _row(key: str, figure: Figure) -> tuple[str, ...]:
    spread = interval(figure)
    shown = "no error known" if spread is None else f"[{spread[0]:.4g}, {spread[1]:.4g}]"
    goal, unit = str(figure.get("goal") or ""), str(figure.get("unit") or "")
    return key, f"{figure['value']:.5g}", unit, shown, str(figure.get("n", "-")), goal, verdict(figure)
