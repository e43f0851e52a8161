"""The charts of a run's learning, machine and noise levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.reporting.bins import LOSS, NOISE_LABEL, Axis, bin_charts
from evaluation.reporting.chart import Chart, Series, chart_of, raw_and_smooth, series_of
from evaluation.reporting.curves import Floats, keep_extremes, smooth, spread_indices, value_range
from evaluation.reporting.folder import Run
from evaluation.reporting.table import Table
from evaluation.reporting.terms import MORE, update_name
from evaluation.reporting.values import items, mapping, number

MAX_UPDATES = 6
MAX_MARKS = 40
MARKED = ("resume", "restart", "anomaly", "stop")
FLOP_NOTE = "FLOPs: the method's count of matrix products and attention, forward and backward, without recomputation."


def learning_charts(run: Run) -> list[Chart]:
    """One learning curve an update: training loss, validation, and where the run was interrupted."""
    charts = (_learning(run, update, i) for i, update in enumerate(run.updates[:MAX_UPDATES]))
    return [chart for chart in charts if chart]


def _learning(run: Run, update: str, index: int) -> Chart | None:
    x, y = run.train.series("loss", update)
    series = raw_and_smooth("training", "0", x, y)
    at, value, error = _validation(run.validation, update)
    if len(at):
        series.append(series_of("validation", "1", "points", at, value, value - 2 * error, value + 2 * error))
    bars = 2 * np.nan_to_num(error)
    limits = value_range([smooth(y).mean, value - bars, value + bars], 0.0)
    if limits and len(y):
        # Single steps of a heavy-tailed loss may lie far out: the axis follows them for a third of its length.
        reach = (limits[1] - limits[0]) / 3
        limits = (max(limits[0] - reach, min(limits[0], y.min())), min(limits[1] + reach, max(limits[1], y.max())))
    title = "Learning curve" if len(run.updates) == 1 else f"Learning curve: {update_name(update)}"
    return chart_of(
        f"learning-{index}",
        title,
        series,
        "loss",
        limits,
        x={"label": "step", "log": True},
        height=340,
        marks=_marks(run),
        note=_beyond(y, limits),
    )


def _validation(table: Table, update: str) -> tuple[Floats, Floats, Floats]:
    """(steps, values, standard errors) of the validation loss, written as {"value", "stderr"} or as a number."""
    value = table.column("loss", update, "value")
    value = np.where(np.isfinite(value), value, table.column("loss", update))
    error = table.column("loss", update, "stderr")
    known = np.isfinite(value)
    kept = np.flatnonzero(known)
    kept = kept[spread_indices(len(kept), 400)] if len(kept) else kept
    return np.asarray(table.steps, dtype=np.float64)[kept], value[kept], error[kept]


def _beyond(y: Floats, limits: tuple[float, float] | None) -> str:
    outside = int(((y < limits[0]) | (y > limits[1])).sum()) if limits else 0
    return f"{outside:,} of {len(y):,} single steps lie beyond the axis." if outside else ""


def _marks(run: Run) -> list[dict[str, Any]]:
    """Steps at which the run was interrupted or resumed."""
    marks = []
    for event in run.events:
        step, kind = number(event.get("step")), str(event.get("kind"))
        if kind in MARKED and np.isfinite(step):
            marks.append({"x": step, "label": kind})
    return marks[-MAX_MARKS:]


def machine_charts(run: Run) -> list[Chart]:
    """Small charts of the optimizer and of the machine."""
    charts = [
        _by_update(run, "rate", "Learning rate", "lr"),
        _by_update(run, "gradient", "Gradient norm", "grad_norm"),
        _throughput(run),
        _memory(run),
        _utilisation(run),
    ]
    return [chart for chart in charts if chart]


def _by_update(run: Run, name: str, title: str, column: str) -> Chart | None:
    updates = run.train.names(column)[:MAX_UPDATES]
    if column == "lr":  # an update and its repetitions have one optimizer
        updates = [update for update in updates if update.removesuffix(MORE) == update or len(updates) == 1]
    series: list[Series] = []
    values = []
    for index, update in enumerate(updates):
        x, y = run.train.series(column, update)
        label = update_name(update) if len(updates) > 1 else title.lower()
        if column == "lr":
            kept = keep_extremes(y, 600)
            series.append(series_of(label, str(index % 6), "line", x[kept], y[kept]))
        else:
            series += raw_and_smooth(label, str(index % 6), x, y)
        values.append(y)
    return chart_of(name, title, series, "", value_range(values), zero=column == "lr")


def _throughput(run: Run) -> Chart | None:
    for column, unit in (("tokens_per_second", "tokens/s"), ("samples_per_second", "samples/s")):
        x, y = run.train.series(column)
        if len(x):
            series = raw_and_smooth(unit, "2", x, y)
            return chart_of("speed", "Throughput", series, unit, value_range([y]), zero=True)
    return None


def _memory(run: Run) -> Chart | None:
    series = []
    for index, place in enumerate(("host", "device")):
        x, y = run.train.series(f"{place}_memory_gb")
        if len(x):
            kept = keep_extremes(y, 600)
            series.append(series_of(place, str(3 + index), "line", x[kept], y[kept]))
    return chart_of("memory", "Memory", series, "GB", zero=True)


def _utilisation(run: Run) -> Chart | None:
    x, y = run.train.series("mfu")
    series = raw_and_smooth("MFU", "2", x, y)
    return chart_of("mfu", "Model FLOP utilisation", series, "", zero=True, note=_peak(run))


def _peak(run: Run) -> str:
    """What the MFU is a share of: runs on GPUs record the memory of their device, others do not."""
    gpu = len(run.train.series("device_memory_gb")[0]) > 0
    whole = (
        "the GPU's published dense rate for the precision of the training"
        if gpu
        else "the rate of fp32 matrix products measured on the worker's threads when it started"
    )
    return f"Share of {whole}. {FLOP_NOTE}"


def noise_charts(run: Run) -> list[Chart]:
    """Loss by noise level as evaluated at the end, and what is told by noise level over the training."""
    evaluated = _evaluated_noise(run)
    return [*([evaluated] if evaluated else []), *bin_charts(run)]


def _evaluated_noise(run: Run) -> Chart | None:
    data: Mapping[str, Any] = mapping(run.evaluation.get(LOSS))
    value = np.array([number(v) for v in items(data.get("value"))])
    error = np.array([number(v) for v in items(data.get("stderr"))])
    edges = np.array([number(v) for v in items(data.get("edges"))])
    if len(edges) != len(value) + 1 or not np.isfinite(edges).all():
        edges = np.linspace(0, 1, len(value) + 1)
    error = error if len(error) == len(value) else np.full(len(value), np.nan)
    error = np.nan_to_num(error)
    axis = Axis(NOISE_LABEL, edges)
    series = [series_of("held-out loss", "1", "line", axis.middles, value, value - 2 * error, value + 2 * error)]
    series[0]["dots"] = True
    title = "By noise level, evaluated"
    return chart_of("noise", title, series, "loss", x=axis.x, height=260, note=f"Held-out windows. {_model(run)}")


def _model(run: Run) -> str:
    model = run.evaluation.get("model")
    return f"Weights: {model}." if isinstance(model, str) and model else ""
