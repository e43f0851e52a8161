"""One benchmark in this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from evaluation.benchmarks import Benchmark, Draws
from evaluation.canvas import rendered
from generative.training.runfolder import atomic_write
from launch.bench_table import Measured, Outcome, text, write_table
from launch.environment import measured_on
from launch.folder import write_output


def run_one(
    name: str, benchmark: Benchmark, quick: bool, json: Path | None, table: Path | None, picture: Path | None
) -> None:
    """Measure, print the table, and write what was asked for."""
    began = time.monotonic()
    figures = benchmark.run(quick)
    seconds = round(time.monotonic() - began, 3)
    result: dict[str, Any] = {"name": name, "quick": quick, "seconds": seconds}
    result |= {"environment": measured_on(), "figures": figures}
    measured = Measured([Outcome.of(result)], result["environment"], quick)
    print(text(measured))
    write_output(json, result)
    write_table(table, measured)
    if picture is not None and isinstance(benchmark, Draws):
        kind: Literal["svg", "png"] = "png" if picture.suffix == ".png" else "svg"
        atomic_write(picture, rendered(benchmark.draw(figures), kind))
