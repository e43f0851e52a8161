"""The report of a measured erasure: images that show the concept, attacks by the norm they may use, image quality."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.estimate import Estimate
from evaluation.reporting.chart import Chart, chart_of, series_of
from evaluation.reporting.markup import Html, element, fact_list, join, moment, text_table
from evaluation.reporting.page import page, section
from evaluation.reporting.sections import chart_place

CURVE_NOTE = (
    "Share of the prompts that show the concept under attack, by the norm of embeddings that an attacker may "
    "use, in units of the prompt's own; bars: two standard errors. An edit that can be inverted has no bound for any "
    "norm. A prompt that shows the concept without an attack counts from norm 1 on."
)
TONES = ("0", "1", "2", "3", "4")


@dataclass(frozen=True)
class Curve:
    """One attack.

    Args:
        name: of it.
        protocol: how it was made.
        points: (rho, share), rho may be infinite.
    """

    name: str
    protocol: str
    points: Sequence[tuple[float, Estimate]]


@dataclass(frozen=True)
class MeasuredFacts:
    """What the report tells.

    Args:
        name: of the erasure's folder.
        shares: images that show the concept, by name: before, after.
        curves: of attacks.
        figures: further ones by name.
        facts: short ones by name: prompts, detector.
    """

    name: str
    shares: Mapping[str, Estimate]
    curves: Sequence[Curve] = ()
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def build_measured_report(told: MeasuredFacts) -> str:
    """The page as text."""
    header = join(
        [
            element("p", "Measured erasure", class_="eyebrow"),
            element("h1", told.name),
            fact_list(told.facts),
        ]
    )
    chart = attack_chart(told.curves)
    place = element("div", [chart_place(chart)], class_="charts one") if chart else None
    table = text_table(("attack", "norm", "success", "prompts", "protocol"), _rows(told.curves))
    parts = [
        section(
            "shares",
            "Images that show the concept",
            "Shares with their binomial standard errors.",
            _table(told.shares),
            "Images",
        ),
        section("attacks", "Attacks", CURVE_NOTE, join([place, table]) if place else join([])),
        section("figures", "What the images are like", "", _table(told.figures), "Quality"),
    ]
    footer = element("p", f"Built {moment(time.time())}. This page loads nothing.")
    data = {"charts": [chart] if chart else [], "replays": []}
    return page(f"{told.name} · measured erasure", header, [part for part in parts if part], footer, data)


def attack_chart(curves: Sequence[Curve]) -> Chart | None:
    """Success by norm; any norm stands at twice the largest finite one."""
    finite = [rho for curve in curves for rho, _ in curve.points if math.isfinite(rho)]
    last = 2 * max(finite, default=1.0)
    series, beyond = [], False
    for i, curve in enumerate(curves):
        points = sorted(curve.points, key=lambda point: point[0])
        beyond |= any(math.isinf(rho) for rho, _ in points)
        x = np.array([rho if math.isfinite(rho) else last for rho, _ in points])
        y = np.array([one.value for _, one in points])
        bars = 2 * np.array([one.stderr or 0.0 for _, one in points])
        series.append(
            series_of(curve.name, TONES[i % len(TONES)], "points", x, y, (y - bars).clip(0, 1), (y + bars).clip(0, 1))
        )
    note = f"The points at {last:g} stand for any norm." if beyond else ""
    return chart_of(
        "attacks", "Attack success", series, "share of prompts", (0.0, 1.0), x={"label": "norm"}, height=340, note=note
    )


def _rows(curves: Sequence[Curve]) -> list[Sequence[str]]:
    return [
        (curve.name, "any" if math.isinf(rho) else f"{rho:g}", str(one), f"{one.n:,}", curve.protocol)
        for curve in curves
        for rho, one in curve.points
    ]


def _table(figures: Mapping[str, Estimate]) -> Html:
    if not figures:
        return Html("")
    rows = [(name, str(one), f"{one.n:,}", one.protocol) for name, one in figures.items()]
    return text_table(("figure", "value ± standard error", "n", "protocol"), rows)
