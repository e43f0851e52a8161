"""Straight lines in log-log: y = exp(intercept) x^slope, fitted by weighted least squares, for many draws at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evaluation.scaling.points import Floats


@dataclass(frozen=True)
class Line:
    """log y = intercept + slope log x. Fields may be arrays, one entry a draw."""

    slope: Any
    intercept: Any

    def __call__(self, x: ArrayLike) -> Any:
        """y at x."""
        return np.exp(self.intercept + self.slope * np.log(x))

    def inverse(self, y: ArrayLike) -> Any:
        """x at y."""
        return np.exp((np.log(y) - self.intercept) / self.slope)


def fit_line(x: Floats, y: Floats, weight: Floats | None = None) -> Line:
    """Least squares of log y over log x, leaving out what is NaN.

    Args:
        x: float64[n].
        y: float64[n], or float64[R, n] for R lines.
        weight: float64[n]; 1 by default.

    Returns:
        A line; slope and intercept are NaN where fewer than two points are left.
    """
    log_x, log_y = np.log(x), np.log(y)
    w = np.where(np.isfinite(log_y), 1.0 if weight is None else weight, 0.0)
    known = np.where(np.isfinite(log_y), log_y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = (w * log_x).sum(-1) / w.sum(-1), (w * known).sum(-1) / w.sum(-1)
        off = log_x - mean_x[..., None]
        spread = (w * off**2).sum(-1)
        slope = np.where(spread > 1e-12, (w * off * known).sum(-1) / spread, np.nan)
    intercept = mean_y - slope * mean_x
    return Line(float(slope), float(intercept)) if log_y.ndim == 1 else Line(slope, intercept)
