"""Shares of images with their binomial errors, and the curves that compare erasures at equal harm to the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evaluation.estimate import Estimate, unanimous_error


def share(hits: int, count: int, protocol: str = "") -> Estimate:
    """hits / count with the binomial standard error sqrt(p (1 - p) / n).

    Of no hits, or of hits alone, that would be 0, as if a few images proved it: see `unanimous_error`.

    Raises:
        ValueError: no images, or more hits than images.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"{hits} of {count} images")
    p = hits / count
    error = math.sqrt(p * (1 - p) / count) if 0 < hits < count else unanimous_error(count)
    return Estimate(p, error, count, "", protocol)


Point = tuple[float, float]
"""(accuracy of the others, attack success) of one setting."""


def success_at(curve: Sequence[Point], accuracy: float) -> float | None:
    """Attack success of a method where the others keep this accuracy, by straight lines between its settings.

    Settings of equal accuracy count as their mean. None where the curve does not reach the accuracy from both sides.
    """
    by_accuracy: dict[float, list[float]] = {}
    for at, success in curve:
        by_accuracy.setdefault(at, []).append(success)
    places = sorted(by_accuracy)
    if not places or not places[0] <= accuracy <= places[-1]:
        return None
    return float(np.interp(accuracy, places, [float(np.mean(by_accuracy[at])) for at in places]))
