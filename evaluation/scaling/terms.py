"""Losses that are sums of exponentials: log L = log sum_k exp(Z_k theta + o_k), with gradients for many thetas at once.

L = E + A / N^alpha + B / D^beta is one with theta = (a, b, e, alpha, beta) and terms a - alpha log N, b - beta log D
and e; L = L_inf + (x0 / x)^alpha is another. Fixed and tied parameters are linear maps of the free ones.

Shapes: R thetas, n points, K terms, P free parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.scaling.points import Floats


@dataclass(frozen=True)
class Terms:
    """A sum of K exponentials at n points.

    Args:
        design: float64[n, K, P].
        offset: float64[n, K].
    """

    design: Floats
    offset: Floats

    def restricted(self, matrix: Floats, constant: Floats) -> Terms:
        """The same sum as a function of free parameters: theta = matrix @ free + constant."""
        return Terms(self.design @ matrix, self.offset + self.design @ constant)

    def log_loss(self, theta: Floats) -> tuple[Floats, Floats]:
        """log L float64[R, n] and each term's share of it float64[R, n, K], for theta float64[R, P]."""
        n, K, P = self.design.shape
        terms = (theta @ self.design.reshape(n * K, P).T).reshape(-1, n, K) + self.offset
        highest = terms.max(axis=-1, keepdims=True)
        shares = np.exp(terms - highest)
        total = shares.sum(axis=-1, keepdims=True)
        return (highest + np.log(total))[..., 0], shares / total

    def slopes(self, shares: Floats) -> Floats:
        """d log L / d theta, float64[R, n, P]."""
        slopes: Floats = np.einsum("rnk,nkp->rnp", shares, self.design)
        return slopes

    @cached_property
    def _squares(self) -> Floats:
        """Z Z^T of each term, float64[n K, P P]."""
        n, K, P = self.design.shape
        squares: Floats = np.einsum("nkp,nkq->nkpq", self.design, self.design).reshape(n * K, P * P)
        return squares

    def curvature(self, shares: Floats, slopes: Floats, weight: Floats) -> Floats:
        """sum_n weight_n d2 log L_n / d theta2, float64[R, P, P]; weight float64[R, n]."""
        n, K, P = self.design.shape
        first = (weight[..., None] * shares).reshape(len(shares), n * K) @ self._squares
        return first.reshape(-1, P, P) - weighted_gram(slopes, weight)


def weighted_gram(slopes: Floats, weight: Floats) -> Floats:
    """sum_n weight_n s_n s_n^T, float64[R, P, P]."""
    gram: Floats = (slopes * weight[..., None]).transpose(0, 2, 1) @ slopes
    return gram


def law_terms(log_x: Floats) -> Terms:
    """Terms of floor + sum_v exp(a_v) / x_v^alpha_v in theta = (a_1 .. a_V, log floor, alpha_1 .. alpha_V).

    Args:
        log_x: float64[n, V].
    """
    n, V = log_x.shape
    design = np.zeros((n, V + 1, 2 * V + 1))
    for v in range(V):
        design[:, v, v], design[:, v, V + 1 + v] = 1.0, -log_x[:, v]
    design[:, V, V] = 1.0
    return Terms(design, np.zeros((n, V + 1)))
