"""Which modes of a known mixture a generator reaches: ring, grid and stacked digits.

Histograms are over modes; KL divergences and entropies are in nats. Standard errors are by bootstrap over samples,
which for a histogram is a multinomial draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.estimate import Estimate, mean_estimate
from generative.errors import DataError

RESAMPLES = 200

Histogram = NDArray[np.float64]
"""Counts, [..., modes]."""


def ring(modes: int = 8, radius: float = 1.0) -> Tensor:
    """Means evenly over a circle, float64[modes, 2] (PacGAN: 8 of radius 1, standard deviation 0.01)."""
    angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def grid(side: int = 5, spacing: float = 2.0) -> Tensor:
    """Means on a square grid around zero, float64[side^2, 2] (PacGAN: 5 x 5, spacing 2, standard deviation 0.05)."""
    places = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing
    return torch.cartesian_prod(places, places)


@dataclass(frozen=True)
class MixtureModes:
    """How points fall on the modes of a mixture.

    Args:
        counts: high-quality points nearest to each mode, int64[M].
        modes: modes with one such point or more.
        high_quality: share of points that are within three standard deviations of the nearest mode.
        reverse_kl: KL(histogram of high-quality points || uniform).
        jensen_shannon: divergence of the same two.
        entropy: of the histogram.
    """

    counts: Tensor
    modes: Estimate
    high_quality: Estimate
    reverse_kl: Estimate
    jensen_shannon: Estimate
    entropy: Estimate


def mixture_modes(points: Tensor, means: Tensor, std: float, *, inclusive: bool = False) -> MixtureModes:
    """Modes that points reach (Lin et al. 2018, PacGAN; 2,500 points there).

    Args:
        points: [N, 2], or of any other dimension.
        means: means of the mixture, [M, 2].
        std: standard deviation of its parts.
        inclusive: whether a point at exactly three standard deviations counts: `<` as PacGAN has it, or `<=`.

    Raises:
        DataError: no points, or points of another dimension.
    """
    if points.ndim != 2 or points.shape[1] != means.shape[1] or not len(points):
        raise DataError(
            f"points {list(points.shape)} for a mixture with means {list(means.shape)}",
            expected="one row or more, with as many columns as the means",
            remedy="draw points of the dimension that the mixture has",
        )
    apart = torch.cdist(points.double(), means.double(), compute_mode="donot_use_mm_for_euclid_dist") / std
    distance, mode = apart.min(1)
    good = distance <= 3 if inclusive else distance < 3
    # One more bin for the points that are not of high quality, so that a resample may hold more or fewer of them.
    counts = torch.bincount(torch.where(good, mode, len(means)), minlength=len(means) + 1)
    protocol = f"{len(points):,} points, {len(means)} modes, high quality {'≤' if inclusive else '<'} 3 std"
    estimate = _Bootstrap(counts.numpy().astype(np.float64), protocol)
    return MixtureModes(
        counts=counts[:-1],
        modes=estimate(lambda h: (h[..., :-1] > 0).sum(-1)),
        high_quality=estimate(lambda h: 1 - h[..., -1] / h.sum(-1)),
        reverse_kl=estimate(lambda h: kl_to_uniform(h[..., :-1]), "nats"),
        jensen_shannon=estimate(lambda h: _jensen_shannon(h[..., :-1]), "nats"),
        entropy=estimate(lambda h: math.log(len(means)) - kl_to_uniform(h[..., :-1]), "nats"),
    )


@dataclass(frozen=True)
class StackedModes:
    """How images of stacked digits fall on the combinations of their labels (1000 for three channels of ten digits).

    Args:
        modes: combinations with one sample or more.
        kl: KL(histogram || uniform); a perfect sampler has about (combinations - 1) / 2N by chance.
        confidence: mean over samples and channels of the largest class probability; None for labels alone.
    """

    modes: Estimate
    kl: Estimate
    confidence: Estimate | None


def stacked_modes(labels: Tensor, classes: int = 10, confidence: Tensor | None = None, judge: str = "") -> StackedModes:
    """Modes that stacked digits reach (Srivastava et al. 2017, VEEGAN; 26,000 samples there).

    Args:
        labels: class of each channel, integers [N, C], each 0 .. classes - 1.
        classes: of one channel.
        confidence: largest class probability of each channel, float[N, C].
        judge: the classifier, for the protocol.

    Raises:
        DataError: no samples, or a label out of range.
    """
    if labels.ndim != 2 or not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels {list(labels.shape)} of stacked digits",
            expected=f"one row or more, each label 0 .. {classes - 1}",
            remedy="give the label of each channel of each sample",
        )
    channels, total = labels.shape[1], classes ** labels.shape[1]
    places = (labels.long() * classes ** torch.arange(channels - 1, -1, -1)).sum(1)
    by_chance = (total - 1) / (2 * len(labels))
    protocol = ", ".join(
        filter(
            None, [f"{len(labels):,} samples, {total:,} modes, KL of a perfect sampler about {by_chance:.2g}", judge]
        )
    )
    estimate = _Bootstrap(torch.bincount(places, minlength=total).numpy().astype(np.float64), protocol)
    return StackedModes(
        modes=estimate(lambda h: (h > 0).sum(-1)),
        kl=estimate(kl_to_uniform, "nats"),
        confidence=None if confidence is None else mean_estimate(confidence.double().mean(1).numpy(), "", protocol),
    )


def judged_modes(probabilities: Tensor, judge: str = "") -> StackedModes:
    """`stacked_modes` from a classifier's probabilities of each channel, float[N, C, K]."""
    confidence, labels = probabilities.max(2)
    return stacked_modes(labels, probabilities.shape[2], confidence, judge)


def kl_to_uniform(histogram: Histogram) -> Histogram:
    """KL(histogram || uniform) in nats over the last axis; infinite for an empty histogram."""
    total = histogram.sum(-1, keepdims=True)
    share = histogram / np.maximum(total, 1)
    kl = np.log(histogram.shape[-1]) + (share * np.log(np.where(share > 0, share, 1))).sum(-1)
    return np.asarray(np.where(total[..., 0] > 0, kl, np.inf), dtype=np.float64)


def _jensen_shannon(histogram: Histogram) -> Histogram:
    """Jensen-Shannon divergence of a histogram and the uniform one, in nats."""
    p = histogram / np.maximum(histogram.sum(-1, keepdims=True), 1)
    q = np.full_like(p, 1 / p.shape[-1])
    m = (p + q) / 2
    both = np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / m), 0) + q * np.log(q / m)
    return np.asarray(both.sum(-1) / 2, dtype=np.float64)


@dataclass(frozen=True)
class _Bootstrap:
    """Estimates of statistics of one histogram; each resample draws as many samples from it."""

    counts: Histogram
    protocol: str

    def __call__(self, statistic: Callable[[Histogram], NDArray[Any]], unit: str = "") -> Estimate:
        total = int(self.counts.sum())
        draws = np.random.default_rng(0).multinomial(total, self.counts / total, size=RESAMPLES)
        with np.errstate(invalid="ignore"):  # infinities where no point is of high quality
            stderr = float(np.std(statistic(draws.astype(np.float64)), ddof=1))
        known = stderr if math.isfinite(stderr) else None
        protocol = f"{self.protocol}; error by bootstrap over samples"
        return Estimate(float(statistic(self.counts)), known, total, unit, protocol)
