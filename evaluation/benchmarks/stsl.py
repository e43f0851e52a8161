"""STSL and the posterior samplers beside it: exact posteriors, speed, digits by pixels, and CIFAR-10 by latents.

Parts can be had alone: `stsl_exact`, `stsl_speed`, `stsl_digits` and `stsl_latent`.
"""

from __future__ import annotations

from evaluation.benchmarks import stsl_digits, stsl_exact, stsl_latent, stsl_speed
from evaluation.benchmarks.figure import Figure


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    exact = stsl_exact.run(quick)
    return {**exact, **stsl_speed.run(quick), **stsl_digits.run(quick), **stsl_latent.run(quick)}
