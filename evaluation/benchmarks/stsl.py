"""STSL and the posterior samplers beside it: exact posteriors, speed, and digits.

Parts can be had alone: `stsl_exact`, `stsl_speed` and `stsl_digits`.
"""

from __future__ import annotations

from evaluation.benchmarks import stsl_digits, stsl_exact, stsl_speed
from evaluation.benchmarks.figure import Figure


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    exact = stsl_exact.run(quick)
    return {**exact, **stsl_speed.run(quick), **stsl_digits.run(quick)}
