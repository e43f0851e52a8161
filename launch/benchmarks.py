"""All benchmarks by name: those of the library, and those that start whole runs."""

from __future__ import annotations

import importlib
from typing import cast

from evaluation.benchmarks import BENCHMARKS, Benchmark
from generative.registry import Registry

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


def load(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: unknown name; the message lists them.
    """
    return cast("Benchmark", importlib.import_module(ALL[name]))
