"""The lowest loss over sizes at one budget: a parabola in log N (Hoffmann et al. 2022, approach 2), or Akima's curve.

A parabola of L itself keeps the same bias at every budget of an additive surface; one of log L does not.

Shapes: n runs of one budget, R draws at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.scaling.points import Floats

Kind = Literal["parabola", "akima"]


@dataclass(frozen=True)
class ValleyOptions:
    """How the minimum over sizes is found.

    Args:
        kind: "parabola", or "akima" for the interpolation of all points (Porian et al. 2024): no smoothing.
        log_loss: of log L instead of L ("akima" always takes log L).
        window: sizes within this factor of the best one alone enter the parabola; None for all.
        robust: Huber weights for outliers, at 1.345 robust standard deviations.
    """

    kind: Kind = "parabola"
    log_loss: bool = False
    window: float | None = None
    robust: bool = False


@dataclass(frozen=True)
class Parabola:
    """y = height + curvature (log N - vertex)^2, y being L or log L. Fields are arrays, one entry a draw.

    Args:
        vertex: log N there; NaN where the curve does not open upwards.
        height: y at the vertex.
        curvature: second derivative / 2.
        log_loss: what y is.
    """

    vertex: Floats
    height: Floats
    curvature: Floats
    log_loss: bool

    def __call__(self, N: Floats) -> Floats:
        """Loss float64[R, m] at N float64[m]."""
        off = np.log(N) - self.vertex[..., None]
        y: Floats = self.height[..., None] + self.curvature[..., None] * off**2
        return np.exp(y) if self.log_loss else y


def fit_parabola(N: Floats, loss: Floats, weight: Floats, log_loss: bool = False, robust: bool = False) -> Parabola:
    """Weighted least squares.

    Args:
        N: float64[n].
        loss: float64[R, n].
        weight: float64[R, n] or float64[n].
        log_loss: fit log L.
        robust: repeat with Huber weights of the residuals.
    """
    y = np.log(loss) if log_loss else loss
    centre, scale = np.log(N).mean(), max(float(np.log(N).std()), 1e-12)
    u = (np.log(N) - centre) / scale
    columns = np.stack([np.ones_like(u), u, u**2], axis=1)
    weights = np.broadcast_to(weight, y.shape)
    coefficients = _solve(columns, y, weights)
    for _ in range(20 if robust else 0):
        residual = np.abs(y - coefficients @ columns.T)
        limit = 1.345 * 1.4826 * np.median(residual, axis=1, keepdims=True) + 1e-12
        coefficients = _solve(columns, y, weights * np.minimum(1.0, limit / np.maximum(residual, 1e-300)))
    c0, c1, c2 = coefficients.T
    with np.errstate(invalid="ignore", divide="ignore"):
        vertex = np.where(c2 > 1e-9 * np.abs(c0), -c1 / (2 * c2), np.nan)
    return Parabola(centre + scale * vertex, c0 + vertex * c1 / 2, c2 / scale**2, log_loss)


def _solve(columns: Floats, y: Floats, weight: Floats) -> Floats:
    """Coefficients float64[R, 3]; a set with fewer than three sizes gives no upward curve."""
    gram = np.einsum("rn,np,nq->rpq", weight, columns, columns)
    right = np.einsum("rn,rn,np->rp", weight, y, columns)
    size = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    return np.linalg.solve(gram + 1e-13 * size * np.eye(3), right[..., None])[..., 0]


def akima_minimum(N: Floats, loss: Floats) -> tuple[float, float]:
    """log N and log L at the lowest point of Akima's curve through log L over log N (sizes ascending, two or more)."""
    from scipy.interpolate import Akima1DInterpolator

    log_N, log_L = np.log(N), np.log(loss)
    curve = Akima1DInterpolator(log_N, log_L)
    flat = curve.derivative().roots(extrapolate=False)
    candidates = np.concatenate([log_N, flat[np.isfinite(flat)]])
    values = curve(candidates)
    lowest = int(np.nanargmin(values))
    return float(candidates[lowest]), float(values[lowest])


def by_size(N: Floats, *columns: Floats) -> tuple[Floats, list[Floats]]:
    """Sizes ascending, and the mean of each column[..., n] over the runs of one size (its seeds)."""
    sizes, of_run, counts = np.unique(N, return_inverse=True, return_counts=True)
    member = (of_run == np.arange(len(sizes))[:, None]) / counts[:, None]
    return sizes, [column @ member.T for column in columns]
