"""The sections of the report that are plain markup: header, facts, charts' places, events, configuration."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.quantities import duration
from evaluation.reporting import figures as fig
from evaluation.reporting.chart import Chart
from evaluation.reporting.curves import keep_extremes
from evaluation.reporting.facts import facts
from evaluation.reporting.folder import Run
from evaluation.reporting.markup import Html, element, join, moment
from evaluation.reporting.values import number
from evaluation.reporting.watch import alarm_note

MAX_EVENTS = 300
MAX_MESSAGE = 2000
MAX_CONFIG = 200_000

STATES = {
    "complete": ("✓", "Complete"),
    "running": ("●", "Running"),
    "evaluating": ("●", "Evaluating"),
    "starting": ("○", "Starting"),
    "interrupted": ("‖", "Interrupted"),
    "failed": ("✕", "Failed"),
    "lost": ("?", "Lost"),
}


def header(run: Run) -> Html:
    """Name, state, headline figure with what it is compared with, and the facts of the run."""
    return join(
        [
            element("p", "Run report", class_="eyebrow"),
            element("h1", breakable(run.name)),
            element("p", state_sign(run.state), " ", _when(run), class_="when"),
            _problem(run),
            alarm_note(run),
            element("div", _headline(run), _against(run) or _beside(run), class_="hero"),
            facts(run),
        ]
    )


def state_sign(state: str) -> Html:
    """What became of a run, as a sign and a word."""
    symbol, word = STATES.get(state, ("?", state.capitalize()))
    kind = state if state in STATES else "unknown"
    return element("span", element("span", symbol, aria_hidden="true"), f" {word}", class_=f"state {kind}")


def breakable(name: str) -> list[Html]:
    """A name that may be broken after each slash."""
    return [Html(f"{join(part)}<wbr>") for part in name.replace("/", "/\0").split("\0")]


def _when(run: Run) -> str:
    last = number(run.status.get("heartbeat"))
    times = run.train.column("time")
    known = [t for t in (last, *times[-1:]) if math.isfinite(t)]
    if not known:
        return ""
    if run.state == "lost":
        return f"no sign of life for {duration(time.time() - max(known))}, last at {moment(max(known))}"
    return f"last written {moment(max(known))}"


def _problem(run: Run) -> Html | None:
    """What went wrong and what to do, where the run did not end well."""
    if run.state not in ("failed", "interrupted"):
        return None
    said = [("", "problem"), ("Expected: ", "expected"), ("To fix: ", "remedy")]
    lines = [(label, str(run.outcome[key])[:MAX_MESSAGE]) for label, key in said if run.outcome.get(key)]
    message = run.status.get("message")
    if not lines and isinstance(message, str) and message:
        lines = [("", message[:MAX_MESSAGE])]
    if run.state == "interrupted":
        lines.append(("", "The same command given again goes on from the newest checkpoint."))
    rows = [element("p", element("b", label) if label else None, text) for label, text in lines]
    return element("div", rows, class_=f"problem {run.state}", role="note") if rows else None


def _headline(run: Run) -> Html:
    head = fig.headline(run)
    if head is None:
        return element(
            "div", element("p", "No figure yet: nothing has been measured.", class_="quiet"), class_="headline"
        )
    one = head.estimate
    value, _, error = head.number.partition(" ")
    label = ", ".join(filter(None, [head.label, fig.bound_word(one)]))
    return element(
        "div",
        element("p", label, class_="label"),
        element(
            "p",
            element("span", value, class_="value"),
            element("span", f" {error}", class_="error") if error else None,
            element("span", f" {head.unit}", class_="unit") if head.unit else None,
            class_="big",
        ),
        element("p", fig.summary(run), class_="says") if fig.summary(run) else None,
        element("p", _measured(head), class_="quiet"),
        class_="headline",
    )


def _measured(head: fig.Figure) -> str:
    return " · ".join(filter(None, [head.estimate.protocol, f"n = {head.estimate.n:,}" if head.estimate.n else ""]))


def _against(run: Run) -> Html | None:
    rows = fig.comparison(run)
    head = fig.headline(run)
    if not rows or head is None:
        return None
    title = f"Against counting baselines, {head.estimate.unit}" if head.estimate.unit else "Against counting baselines"
    plot = fig.dot_plot(rows, title, head.key)
    note = element("p", "Lower is better. Bars: two standard errors.", class_="quiet")
    return element("div", element("p", title, class_="label"), plot, note, class_="against")


def _beside(run: Run) -> Html | None:
    """Other figures of an image model beside the headline, each with the way that is better."""
    rows = [
        element("tr", element("th", f.label, scope="row"), element("td", _valued(f)), element("td", f.remark))
        for f in fig.beside(run)
    ]
    title = element("p", "Measured beside it", class_="label")
    return element("div", title, element("table", element("tbody", rows)), class_="against beside") if rows else None


def _valued(figure: fig.Figure) -> str:
    return f"{figure.number} {figure.unit}".rstrip()


def chart_place(chart: Chart) -> Html:
    """Where the script draws a chart; without a script a plain line stands there."""
    log = bool(chart["x"].get("log"))
    titles = [chart["title"], chart["y"]["label"] if chart["y"]["label"] != "loss" else ""]
    switch = (
        element("button", "log steps", type="button", class_="switch", aria_pressed="false", hidden=True)
        if log
        else None
    )
    return element(
        "figure",
        element("figcaption", element("h3", ", ".join(filter(None, titles))), switch, class_="chart-head"),
        element("div", class_="legend"),
        element("div", class_="plot", tabindex="0", role="group", aria_label=_described(chart)),
        element("noscript", _outline(chart)),
        element("p", chart["note"], class_="quiet") if chart["note"] else None,
        class_="chart",
        data_chart=chart["id"],
    )


def _described(chart: Chart) -> str:
    """A chart in words: each line from its first to its last value."""
    told = []
    for one in chart["series"]:
        values = [v for v in one["y"] if v is not None]
        if values and one["kind"] != "faint":
            told.append(f"{one['label']} from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{chart['title']}: {'; '.join(told)}. Left and right arrow keys read the values."


def _outline(chart: Chart) -> Html:
    """The last line of a chart stretched over its box."""
    line = next((s for s in chart["series"] if s["kind"] == "line"), chart["series"][0])
    pairs = [(x, y) for x, y in zip(line["x"], line["y"], strict=True) if x is not None and y is not None]
    xs, ys = (np.array(v, dtype=np.float64) for v in zip(*pairs, strict=True))
    kept = keep_extremes(ys, 150)
    wide, high = float(np.ptp(xs)) or 1.0, float(np.ptp(ys)) or 1.0
    points = " ".join(f"{100 * (xs[i] - xs.min()) / wide:.1f},{95 - 90 * (ys[i] - ys.min()) / high:.1f}" for i in kept)
    shape = Html(f'<polyline points="{points}" vector-effect="non-scaling-stroke"></polyline>')
    told = element("p", _described(chart).rpartition(". ")[0], ".", class_="quiet")
    return join([element("svg", shape, class_="outline", viewBox="0 0 100 100", preserveAspectRatio="none"), told])


def events(run: Run) -> Html:
    """The newest events, oldest first."""
    shown = run.events[-MAX_EVENTS:]
    rows = [_event(event) for event in shown]
    left = len(run.events) - len(shown)
    note = element("p", f"{left:,} earlier events are in events.jsonl.", class_="quiet") if left else None
    return join([note, element("ol", rows, class_="events")]) if rows else Html("")


def _event(event: Mapping[str, Any]) -> Html:
    step, kind = number(event.get("step")), str(event.get("kind", ""))[:40]
    loud = kind in ("restart", "resume", "anomaly", "warning", "stop")
    message = event.get("message")
    return element(
        "li",
        element("span", moment(event.get("time")), class_="time"),
        element("span", kind, class_="kind loud" if loud else "kind"),
        element("span", f"step {step:,.0f}" if math.isfinite(step) else "", class_="at"),
        element("span", str(message)[:MAX_MESSAGE] if message else "", class_="message"),
    )


def configuration(run: Run) -> Html:
    """config.yaml as it is."""
    return _folded("Configuration", run.config[:MAX_CONFIG]) if run.config.strip() else Html("")


def environment(run: Run) -> Html:
    """environment.json, indented."""
    text = json.dumps(run.environment, indent=2, ensure_ascii=False, default=str)[:MAX_CONFIG]
    return _folded("Environment", text) if run.environment else Html("")


def _folded(title: str, text: str) -> Html:
    return element("details", element("summary", title), element("pre", text, tabindex="0"))
