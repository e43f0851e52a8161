"""Charts of curves over bins, such as loss by noise level: means of parts of the training, on the method's own axis."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.reporting.chart import Chart, Range, chart_of, numbers, series_of
from evaluation.reporting.curves import Floats, stages
from evaluation.reporting.folder import Run
from evaluation.reporting.table import Key
from evaluation.reporting.terms import MORE, update_name
from evaluation.reporting.values import items, mapping, number

MAX_CHARTS = 6
LOSS = "loss_by_noise"
NOISE_LABEL = "noise level (0 clean, 1 all noise)"
STAGES_NOTE = "Training batches, averaged over the steps named; the stronger the line, the later."


@dataclass(frozen=True)
class Axis:
    """Where bins lie: between `edges` float64[n + 1], ascending, and above 0 on a logarithmic axis."""

    label: str
    edges: Floats
    log: bool = False

    @property
    def middles(self) -> Floats:
        """Of the bins, float64[n], as one sees them on the axis."""
        low, high = self.edges[:-1], self.edges[1:]
        return np.sqrt(low) * np.sqrt(high) if self.log else low / 2 + high / 2

    @property
    def x(self) -> dict[str, Any]:
        """As a chart has it; on a logarithmic axis the borders are what is written."""
        plain = {"label": self.label, "range": numbers(list(self.edges[[0, -1]]))}
        return plain | {"scale": "log", "ticks": numbers(self.edges)} if self.log else plain


@dataclass(frozen=True)
class _Words:
    """What a curve is called and means; `limits` of its values, and a `level` to compare them with."""

    title: str
    note: str = ""
    unit: str = ""
    limits: Range = None
    level: tuple[float, str] | None = None


CURVES = {
    LOSS: _Words("By noise level, over training", unit="loss"),
    "auc_by_time": _Words(
        "AUC of the discriminator by noise level",
        "How often it puts a real sample above a generated one of like noise. 1/2: it sees no difference; near 1: it "
        "never errs, ratios are at their bounds and the weights tell little.",
        limits=(0.0, 1.0),
        level=(0.5, "no difference seen"),
    ),
    "ratio_by_time": _Words(
        "Density ratio by noise level",
        "Mean of the ratio r of real to generated density over generated samples: 1 where the discriminator is "
        "calibrated, whatever the student.",
        level=(1.0, "calibrated"),
    ),
    "ess_by_time": _Words(
        "Effective sample size by noise level",
        "Share of a bin's samples in a batch that count under their weights. 1: all weigh the same; near 0: a few "
        "decide all. A sample alone in its bin gives 1, so small batches look better than they are.",
        limits=(0.0, 1.0),
    ),
}


def axis_of(run: Run, name: str, count: int) -> Axis | None:
    """Where the `count` bins of a curve lie: as status.json tells; else equal ranges for a loss, None for others."""
    told = mapping(mapping(run.status.get("curves")).get(name))
    edges = np.array([number(edge) for edge in items(told.get("edges"))])
    log = told.get("log") is True
    if len(edges) == count + 1 and (edges[1:] > edges[:-1]).all() and (edges[0] > 0 or not log):
        return Axis(str(told.get("label", "")), edges, log)
    return Axis(NOISE_LABEL, np.linspace(0, 1, count + 1)) if name == LOSS else None


def bin_charts(run: Run) -> list[Chart]:
    """A chart for each curve whose bins are known, but for those of updates that repeat another within a step."""
    keys = [key for key in run.train.curve_keys() if not (len(key) > 2 and key[1].endswith(MORE))]
    count = Counter(key[-1] for key in keys)
    charts = (_chart(run, key, count[key[-1]] > 1) for key in keys)
    return [chart for chart in charts if chart][:MAX_CHARTS]


def _chart(run: Run, key: Key, several: bool) -> Chart | None:
    """`several`: updates have a curve of that name."""
    steps, curves = run.train.curve(key)
    axis = axis_of(run, key[-1], curves.shape[-1])
    if axis is None:
        return None
    words = CURVES.get(key[-1]) or _Words(key[-1].replace("_", " ").capitalize())
    parts = stages(steps, curves)
    series = []
    for index, part in enumerate(parts):
        tone = f"s{4 - (len(parts) - 1 - index)}"
        label = f"{part.first_step:,.0f}–{part.last_step:,.0f}"
        series.append(series_of(label, tone, "line", axis.middles, part.mean, part.low, part.high))
    if words.level and any(v is not None for one in series for v in one["y"]):
        series.append(series_of(words.level[1], "5", "limit", axis.edges[[0, -1]], np.full(2, words.level[0])))
    more = f": {update_name(key[1])}" if several and len(key) > 2 else ""
    which = key[1:-1] if key[-1] == LOSS else key[1:]
    return chart_of(
        f"noise-training-{'-'.join(which)}",
        words.title + more,
        series,
        words.unit,
        words.limits,
        x=axis.x,
        height=260,
        note=f"{words.note} {STAGES_NOTE}".lstrip(),
    )
