"""Figures of checkpoint after checkpoint, with a line for each average of the weights."""

from __future__ import annotations

import numpy as np

from evaluation.figure_names import KNOWN_FIGURES
from evaluation.reporting.chart import Chart, chart_of, series_of
from evaluation.reporting.folder import Run

MAX_CHARTS = 6
MAX_AVERAGES = 6


def along_charts(run: Run) -> list[Chart]:
    """One chart for each figure of evaluations/along.jsonl."""
    charts = (_chart(run, key) for key in run.along.names("figures")[:MAX_CHARTS])
    return [chart for chart in charts if chart]


def _chart(run: Run, key: str) -> Chart | None:
    series = []
    for index, average in enumerate(run.along.names("figures", key)[:MAX_AVERAGES]):
        x, y = run.along.series("figures", key, average, "value")
        error = 2 * np.nan_to_num(run.along.series("figures", key, average, "stderr")[1])
        ends = (y - error, y + error) if len(error) == len(y) else (None, None)
        label = average if average == "trained" else f"ema {average}"
        series.append(series_of(label, str(index % 6), "line", x, y, *ends) | {"dots": True})
    known = KNOWN_FIGURES.get(key)
    title = known.label if known else key.replace("_", " ").capitalize()
    note = f"{known.better.capitalize()} is better. Bands: two standard errors." if known else ""
    return chart_of(f"along-{key}", title, series, "", note=note, zero=True)
