"""Precision and recall for distributions: curves between histograms over joint clusters (Sajjadi et al. 2018)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from evaluation.images.jackknife import left_out, membership
from generative.errors import DataError

ANGLES = 1001
_EPSILON = 1e-10


def prd_curve(reference: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Precision and recall at 1001 slopes, float64[..., 1001] each, in [0, 1].

    precision(s) = sum_i min(s p_i, q_i), recall(s) = precision(s) / s, slopes s = tan of angles evenly over (0, pi/2).

    Args:
        reference, generated: histograms p and q that sum to one, float64[..., bins].
    """
    slopes = torch.linspace(_EPSILON, math.pi / 2 - _EPSILON, ANGLES, dtype=torch.float64).tan()
    scaled = reference[..., None, :] * slopes[:, None]
    precision = torch.minimum(scaled, generated[..., None, :]).sum(-1)
    return precision.clamp(0, 1), (precision / slopes).clamp(0, 1)


def best_f(precision: Tensor, recall: Tensor, beta: float) -> Tensor:
    """Largest F_beta = (1 + beta^2) P R / (beta^2 P + R) on the curve; beta 8 weighs recall, 1/8 precision."""
    return ((1 + beta**2) * precision * recall / (beta**2 * precision + recall + _EPSILON)).amax(-1)


def prd_scores(
    reference: Tensor, generated: Tensor, *, bins: int = 20, runs: int = 10, groups: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """F_8 and F_1/8 of the mean curve over several clusterings, float64[1 + groups] each.

    Both sets are clustered together by k-means. They must be of one size, since clusters follow the larger set; the
    first rows are taken of a larger one. When a group is left out, the clusters stay.

    Args:
        reference, generated: features [N, D] and [M, D] in random order.
        bins: clusters.
        runs: clusterings, from seeds of their own.
        groups: groups to leave out in turn (`jackknife`).
        seed: of the first clustering.

    Raises:
        DataError: fewer samples than clusters, or scikit-learn is not installed.
    """
    count = min(len(reference), len(generated))
    if count < bins:
        raise DataError(
            f"{count:,} samples of each set in {bins} clusters",
            expected=f"at least {bins} samples of each",
            remedy="evaluate more images, or fewer clusters",
        )
    both = torch.cat([reference[:count], generated[:count]]).double().numpy()
    kept = (~left_out(membership(count, groups), groups)).double()
    curves = [prd_curve(*_histograms(_clusters(both, bins, seed + run), kept, bins)) for run in range(runs)]
    precision, recall = (torch.stack(parts).mean(0) for parts in zip(*curves, strict=True))
    return best_f(precision, recall, 8.0), best_f(precision, recall, 1 / 8)


def _histograms(labels: Tensor, kept: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Share of each cluster in both sets, of all rows and without each group, float64[1 + G, bins] each."""
    one_hot = torch.nn.functional.one_hot(labels, bins).double()
    reference, generated = (kept @ part / kept.sum(1, keepdim=True) for part in one_hot.chunk(2))
    return reference, generated


def _clusters(samples: np.ndarray, bins: int, seed: int) -> Tensor:
    """Cluster of each sample, int64[N]."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise DataError(
            "precision and recall for distributions need the package scikit-learn, which is not installed",
            expected="an installation with it",
            remedy="pip install 'generative[image]', or leave the metric `prd` out",
        ) from error
    found = KMeans(bins, n_init=1, random_state=seed).fit_predict(samples)
    return torch.from_numpy(np.asarray(found, dtype=np.int64))
