"""`generative bench`: run a benchmark or all, say which goals are met, leave a JSON file and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ALL = "all"


def bench(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Benchmark, or `all`; an unknown name lists the benchmarks.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats: a smoke test, not a measurement.")] = False,
    kept: Annotated[
        bool, typer.Option("--kept", help="With `all`: run nothing, and tell what GENERATIVE_BENCH keeps.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Also write them as a Markdown table; in a page with marks, between these.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw them, where a benchmark knows how: to a .svg or .png file.")
    ] = None,
) -> None:
    """Run benchmarks and compare figures with their goals.

    `all` runs one after the other.

    With GENERATIVE_BENCH=FOLDER, what was interrupted goes on, and `all` does not measure again what it has measured
    with the same code on this machine. --kept makes one table of what was measured with several revisions.
    """
    from generative.errors import ConfigError
    from launch.folder import check_output

    if name != ALL:
        from launch.benchmarks import check_picture, load

        benchmark = load(name)
        check_picture(picture, name, benchmark)
    check_output(json, "--json")
    check_output(table, "--table")
    if name == ALL:
        from launch.bench_all import run_all

        if picture is not None:
            raise ConfigError("--picture with `all`", "one benchmark", "name it, or leave --picture out")
        raise typer.Exit(run_all(quick, json, table, kept=kept))
    if kept:
        raise ConfigError("--kept with one benchmark", "`all`", "give `all`, or leave --kept out")
    from launch.bench_one import run_one

    run_one(name, benchmark, quick, json, table, picture)
