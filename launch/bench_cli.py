"""`generative bench`: run a benchmark, say which goals are met, leave a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Figure = Mapping[str, Any]

INTERVAL = 1.96
"""Standard errors either side of a value that make its 95 % interval."""


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Benchmark; an unknown name lists them.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats: a smoke test, not a measurement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Run a benchmark and compare its figures with their goals."""
    from evaluation.benchmarks import load
    from launch.environment import describe

    figures = load(name).run(quick)
    typer.echo(table(figures))
    if json is not None:
        write(json, {"name": name, "environment": describe(), "figures": figures})


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON."""
    import json

    from generative.training.runfolder import atomic_write

    atomic_write(path, json.dumps(result, indent=1))


def met(figure: Figure) -> bool | None:
    """Whether a figure reaches its goal, which may lie inside its interval or beyond; None without a goal."""
    goal = figure.get("goal")
    if not goal:
        return None
    sign, bound = str(goal).split()
    slack = INTERVAL * float(figure.get("stderr") or 0.0)
    if sign in ("<", "<="):
        return bool(figure["value"] - slack <= float(bound))
    return bool(figure["value"] + slack >= float(bound))


def table(figures: Mapping[str, Figure]) -> str:
    """Figures as lines: value, standard error, repeats, goal."""
    verdicts = {None: "", True: "met", False: "NOT MET"}
    rows = [("figure", "value", "stderr", "n", "goal", "")]
    for key, figure in figures.items():
        error, goal = figure.get("stderr"), figure.get("goal") or ""
        spread = "-" if error is None else f"{error:.2g}"
        rows.append(
            (key, f"{figure['value']:.5g}", spread, str(figure.get("n", "-")), str(goal), verdicts[met(figure)])
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
