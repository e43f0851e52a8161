"""Benchmarks of the library by name. Each is a module with `run(quick) -> figures`, imported when it is asked for.

Figures: {key: {"value": float, "stderr": float | None, "n": int, "goal": "<= 1.03" | ">= 1.6" | None}}; `value` is an
estimate over `n` repeats, `stderr` its standard error; "low" and "high" bound its 95 % interval where one was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from generative.registry import Registry

BENCHMARKS = Registry(
    "benchmark",
    {
        "command_line": "evaluation.benchmarks.command_line",
        "trainer": "evaluation.benchmarks.trainer",
        "masked_diffusion": "evaluation.benchmarks.masked_diffusion",
        "masked_reverse": "evaluation.benchmarks.masked_reverse",
        "shakespeare": "evaluation.benchmarks.shakespeare",
        "mee_gan": "evaluation.benchmarks.mee_gan",
        "f_distill": "evaluation.benchmarks.f_distill",
        "f_distill_cifar10": "evaluation.benchmarks.f_distill_cifar10",
        "f_distill_exact": "evaluation.benchmarks.f_distill_exact",
        "f_distill_modes": "evaluation.benchmarks.f_distill_modes",
        "f_distill_speed": "evaluation.benchmarks.f_distill_speed",
        "sgmse": "evaluation.benchmarks.sgmse",
        "sgmse_long": "evaluation.benchmarks.sgmse_long",
        "rece": "evaluation.benchmarks.rece",
        "rece_speed": "evaluation.benchmarks.rece_speed",
        "stsl": "evaluation.benchmarks.stsl",
        "stsl_exact": "evaluation.benchmarks.stsl_exact",
        "stsl_speed": "evaluation.benchmarks.stsl_speed",
        "stsl_digits": "evaluation.benchmarks.stsl_digits",
        "stsl_latent": "evaluation.benchmarks.stsl_latent",
    },
)


class Benchmark(Protocol):
    """A benchmark's module."""

    def run(self, quick: bool) -> Mapping[str, Mapping[str, Any]]:
        """Measure; `quick` takes a minute or a few and tells little."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A benchmark that can also draw its figures."""

    def draw(self, figures: Mapping[str, Mapping[str, Any]]) -> Any:
        """A figure of matplotlib."""
