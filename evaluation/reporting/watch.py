"""What was measured of samples during the training: modes that are reached, distances, copies; and the alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.figure_names import KNOWN_FIGURES
from evaluation.image_alarms import FEWEST_FOR_SHARES, LEAST_COVERAGE, NEAR, share_limit
from evaluation.reporting.chart import Chart, chart_of, series_of
from evaluation.reporting.curves import keep_extremes
from evaluation.reporting.facts import section_of
from evaluation.reporting.folder import Run
from evaluation.reporting.markup import Html, element
from evaluation.reporting.values import number

TONES = ("0", "1", "2")
EQUAL = 0.97
"""Coverage that equal distributions give, with five neighbours and many samples."""
USUAL = 1000
"""Samples that are watched where a configuration does not say how many."""
MAX_OTHER = 6
MAX_TOLD = 3
"""Alarms that stand in the page's head; all are among the events."""
MAX_MESSAGE = 500


@dataclass(frozen=True)
class _Panel:
    """A chart of some measurements.

    Args:
        lines: {name in metrics.jsonl: label}.
        limit: alarms lie beyond about this level, for so many samples at a time; and what the line is called.
    """

    name: str
    title: str
    lines: dict[str, str]
    note: str
    limit: tuple[Callable[[int], float], str] | None = None


PANELS = (
    _Panel(
        "coverage",
        "Mode coverage",
        {"coverage": "coverage"},
        f"Share of training samples with a generated one among their nearest neighbours: about {EQUAL} where both have "
        "one distribution. Below half of what equal distributions give, by more than chance, it is an alarm: the "
        "generator leaves out part of the data.",
        (lambda samples: LEAST_COVERAGE * EQUAL, "alarm below"),
    ),
    _Panel(
        "distances",
        "Distance to the nearest neighbour",
        {
            "to_training": "generated to training",
            "among_generated": "among generated",
            "among_training": "among training",
        },
        "Medians. All three are alike where both have one distribution. Generated samples that lie much closer to one "
        "another than training samples do are too much alike; much closer to training samples, they may be copies.",
    ),
    _Panel(
        "copies",
        "Near-duplicates and copies",
        {"near_duplicates": "near-duplicates", "near_copies": "copies"},
        "Share of generated samples as close to another one, or to a training sample, as the closest "
        f"{100 * NEAR:.0f} % of training samples are to one another: about {NEAR} where both have one distribution. "
        "From the dashed line on, which lies higher the fewer samples are watched, it is an alarm "
        f"(of {FEWEST_FOR_SHARES} samples or more).",
        (share_limit, "alarm from"),
    ),
)


DISTANCE_CHARTS = {f"watch-{panel.name}" for panel in PANELS}
"""Those that come of distances between generated and training samples."""


def watch_charts(run: Run) -> list[Chart]:
    """Charts of the measurements, with the steps of alarms marked; what no panel knows has a chart of its own."""
    known = {name for panel in PANELS for name in panel.lines}
    others = [name for name in run.monitor.names("metrics") if name not in known][:MAX_OTHER]
    plain = [_Panel(name, (label := _label(name))[:1].upper() + label[1:], {name: label}, "") for name in others]
    marks: list[Mapping[str, Any]] = [{"x": step, "label": "alarm"} for step in sorted({s for s, _ in alarms(run)})]
    charts = [_chart(run, panel, marks if panel in PANELS else []) for panel in (*PANELS, *plain)]
    return [chart for chart in charts if chart]


def _label(name: str) -> str:
    """Of a measurement within a line; a figure's gain is called after the figure."""
    figure = KNOWN_FIGURES.get(name.removesuffix("_gain"))
    if figure is None:
        return name.replace("_", " ")
    return f"{figure.inline}, gain" if name.endswith("_gain") else figure.inline


def _chart(run: Run, panel: _Panel, marks: Sequence[Mapping[str, Any]]) -> Chart | None:
    series = []
    for index, (name, label) in enumerate(panel.lines.items()):
        x, y = run.monitor.series("metrics", name)
        kept = keep_extremes(y, 400)
        one = series_of(label, TONES[index], "line", x[kept], y[kept])
        series.append(one | {"dots": len(kept) <= 60})
    if panel.limit and any(one["x"] for one in series):
        ends = np.array(run.monitor.steps)[[0, -1]]
        level = panel.limit[0](_watched(run))
        series.append(series_of(panel.limit[1], "5", "limit", ends, np.full(2, level)))
    limits = (0.0, 1.0) if panel.name == "coverage" else None
    return chart_of(f"watch-{panel.name}", panel.title, series, "", limits, marks=marks, note=panel.note, zero=True)


def _watched(run: Run) -> int:
    """Samples that are looked at each time, as the configuration says."""
    count = number(section_of(run, "sample").get("monitor"))
    return int(count) if count > 0 else USUAL


def alarms(run: Run) -> list[tuple[float, str]]:
    """(step, message) of the warnings that belong to a measurement, each once, oldest first."""
    measured = set(run.monitor.steps)
    found = [
        (number(event.get("step")), str(event.get("message") or ""))
        for event in run.events
        if event.get("kind") == "warning"
    ]
    return sorted(dict.fromkeys(pair for pair in found if pair[0] in measured and pair[1]), key=lambda pair: pair[0])


def alarm_note(run: Run) -> Html | None:
    """The newest alarms for the page's head, and whether they still stand."""
    found = alarms(run)
    if not found:
        return None
    last, newest = run.monitor.steps[-1], found[-1][0]
    told = [element("p", element("b", f"Step {s:,.0f}: "), text[:MAX_MESSAGE]) for s, text in found[-MAX_TOLD:]]
    count = "One alarm" if len(found) == 1 else f"{len(found):,} alarms"
    still = "" if newest == last else f" The samples at step {last:,.0f}, the newest measured, raised none."
    head = element("p", element("b", f"{count} while samples were watched."), still)
    return element("div", head, told, class_="problem alarm", role="note")
