"""Fréchet distance between Gaussians fitted to features (FID, Heusel et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.images.moments import Moments
from generative.errors import DataError


@dataclass(frozen=True)
class Frechet:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^{1/2}), and what its error is computed from.

    Args:
        value: the distance (squared, as is the custom).
        shift: m1 - m2, float64[D].
        forward: S1^{-1/2} (S1^{1/2} S2 S1^{1/2})^{1/2} S1^{-1/2}, the optimal transport from 1 to 2, float64[D, D].
        backward: the same from 2 to 1, float64[D, D].
    """

    value: float
    shift: Tensor
    forward: Tensor
    backward: Tensor


def frechet_distance(first: Moments, second: Moments) -> Frechet:
    """FID of two sets in float64, covariances divided by N - 1.

    Tr (S1 S2)^{1/2} is taken from the symmetric S1^{1/2} S2 S1^{1/2}, which has the same eigenvalues: real, not
    negative, and well defined where N is less than D (a general matrix root needs an offset or drops imaginary parts
    there).

    Raises:
        DataError: a set of fewer than two samples, or moments that are not finite.
    """
    s1, s2 = first.covariance, second.covariance
    if not (s1.isfinite().all() and s2.isfinite().all()):
        raise DataError(
            "the moments of the features are not finite",
            expected="finite features",
            remedy="look for images with NaN, or statistics that were damaged",
        )
    root, inverse_root = _roots(s1)
    middle, inverse_middle = _roots(root @ s2 @ root)
    shift = first.mean - second.mean
    value = shift.square().sum() + s1.trace() + s2.trace() - 2 * middle.trace()
    # Rounding may leave a tiny negative number where the sets are equal.
    return Frechet(max(float(value), 0.0), shift, inverse_root @ middle @ inverse_root, root @ inverse_middle @ root)


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Root of a symmetric positive semi-definite matrix, and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0)
    cutoff = float(values[-1]) * len(values) * torch.finfo(values.dtype).eps
    inverse = torch.where(values > cutoff, values.rsqrt(), 0.0)
    return (vectors * values.sqrt()) @ vectors.T, (vectors * inverse) @ vectors.T


def frechet_error(distance: Frechet, first: Moments, second: Moments, samples: tuple[Tensor, Tensor | None]) -> float:
    """Standard error of the distance by the delta method.

    The influence of a sample x of the first set is 2 (m1 - m2)(x - m1) + (x - m1)^T (I - T) (x - m1) with the transport
    T from 1 to 2 (its gradient by mean and covariance); its variance over N is the variance of the distance. No further
    matrix roots are needed. Where both sets are alike the influence nears zero and the error is on the high side.

    Args:
        distance: of the two sets.
        first, second: their moments.
        samples: features of some samples of each, [n, D]; None for a set whose features are not known, which then
            counts as exact.
    """
    variance = _influence(samples[0], first.mean, distance.shift, distance.forward).var() / first.count
    if samples[1] is not None:
        backward = _influence(samples[1], second.mean, -distance.shift, distance.backward)
        variance = variance + backward.var() / second.count
    return math.sqrt(float(variance))


def _influence(features: Tensor, mean: Tensor, shift: Tensor, transport: Tensor) -> Tensor:
    """Influence of each sample on the distance, up to a constant, float64[n]."""
    x = features.double() - mean
    return 2 * (x @ shift) + x.square().sum(1) - ((x @ transport) * x).sum(1)
