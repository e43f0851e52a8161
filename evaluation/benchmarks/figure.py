"""A benchmark's figure as `generative bench` prints and writes it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.estimate import Estimate, Ratio

Figure = dict[str, Any]
"""value, stderr, n and goal ("<= 1.03", ">= 2" or None); unit and protocol; low and high where there is an interval."""


def figure(
    measured: Estimate | Ratio, goal: str | None = None, protocol: str = "", values: Sequence[float] | None = None
) -> Figure:
    """The entry of one measurement.

    Args:
        measured: the number with its uncertainty.
        goal: what it should reach.
        protocol: how it was measured, put in front of what `measured` says of itself.
        values: the single observations, where there are few of them (one a seed).
    """
    estimate = measured.estimate if isinstance(measured, Ratio) else measured
    entry: Figure = {
        "value": estimate.value,
        "stderr": estimate.stderr,
        "n": estimate.n,
        "goal": goal,
        "unit": estimate.unit,
        "protocol": "; ".join(filter(None, [protocol, estimate.protocol])),
    }
    if isinstance(measured, Ratio):
        entry |= {"low": measured.low, "high": measured.high}
    return entry if values is None else entry | {"values": list(values)}


def median_estimate(values: list[float], protocol: str) -> Estimate:
    """Median of a few independent values; standard error 1.2533 s / sqrt(n), that of a normal sample's median."""
    error = 1.2533 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return Estimate(float(np.median(values)), error, len(values), "", protocol)


def say(line: str) -> None:
    """Progress of a long benchmark; figures alone go to the standard output."""
    print(line, file=sys.stderr, flush=True)
