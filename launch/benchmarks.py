"""All benchmarks by name: those of the library, and those that start whole runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from evaluation.benchmarks import BENCHMARKS, Benchmark, Draws
from evaluation.canvas import canvas
from generative.errors import ConfigError
from generative.registry import Registry
from launch.folder import check_output

ALL = Registry(
    "benchmark",
    {
        **BENCHMARKS,
        "chaos": "launch.chaos_bench",
        "parallel": "launch.parallel_bench",
        "robustness": "launch.robustness_bench",
        "scaling": "launch.scaling_bench",
    },
)

KINDS = (".svg", ".png")


def load(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: unknown name; the message lists them.
    """
    return cast("Benchmark", importlib.import_module(ALL[name]))


def check_picture(path: Path | None, name: str, benchmark: Benchmark) -> None:
    """Make sure that a picture can be drawn before the work for it begins.

    Raises:
        ConfigError, RunFolderError: a benchmark that draws none, no library, or a file that cannot be written.
    """
    if path is None:
        return
    if not isinstance(benchmark, Draws):
        drawing = ", ".join(each for each in ALL if isinstance(load(each), Draws))
        raise ConfigError(
            f"--picture {path}: {name} draws none", f"one of the benchmarks that do: {drawing}", "leave --picture out"
        )
    if path.suffix not in KINDS:
        raise ConfigError(
            f"--picture {path}: unknown kind of file",
            f"a name that ends in {' or '.join(KINDS)}",
            "give the file one of these endings",
        )
    check_output(path, "--picture")
    canvas()
