"""A chart of the report as plain JSON values that the page's script draws.

A chart is {"id", "title", "note", "x": {"label", "log", "scale", "range", "ticks"}, "y": {"label", "range", "zero"},
"height", "series", "marks"}; an axis with "log" may be switched to logarithms, one with "scale": "log" always has them;
"ticks" are written in place of round numbers. A series is {"label", "tone", "kind", "x", "y", "low", "high"} with kind
"faint" (raw), "line" (with a band), "points" (with bars) or "limit" (a dashed level).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.reporting.curves import Floats, keep_extremes, smooth, spread_indices

Chart = dict[str, Any]
Series = dict[str, Any]
Range = tuple[float, float] | None

SMOOTH_POINTS = 500


def numbers(values: Floats | list[float]) -> list[float | None]:
    """Six significant digits; null where a value is not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]


def series_of(label: str, tone: str, kind: str, x: Floats, y: Floats, low: Any = None, high: Any = None) -> Series:
    """A series of x float[N] and y float[N], with the ends of its band or bars where both are known."""
    one: Series = {"label": label, "tone": tone, "kind": kind, "x": numbers(x), "y": numbers(y)}
    if low is not None and high is not None:
        one |= {"low": numbers(low), "high": numbers(high)}
    return one


def chart_of(name: str, title: str, series: list[Series], unit: str, limits: Range = None, **more: Any) -> Chart | None:
    """A chart, or None where no series has a point. `zero`: the axis begins at 0."""
    series = [one for one in series if any(v is not None for v in one["y"])]
    if not series:
        return None
    y = {"label": unit, "range": numbers(list(limits)) if limits else None, "zero": more.pop("zero", False)}
    chart = {"id": name, "title": title, "note": "", "x": {"label": "step"}, "y": y, "marks": [], "height": 190}
    return {**chart, "series": series, **more}


def raw_and_smooth(label: str, tone: str, x: Floats, y: Floats) -> list[Series]:
    """Each step faintly, and the moving mean with its band."""
    if not len(x):
        return []
    kept, moving = keep_extremes(y), smooth(y)
    shown = spread_indices(len(x), SMOOTH_POINTS)
    return [
        series_of(f"{label}, each step", tone, "faint", x[kept], y[kept]),
        series_of(label, tone, "line", x[shown], moving.mean[shown], moving.low[shown], moving.high[shown]),
    ]
