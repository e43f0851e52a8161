"""The facts of a run at a glance: steps, time, speed, data, restarts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from evaluation.quantities import compact, duration
from evaluation.reporting.folder import Run
from evaluation.reporting.markup import Html, element
from evaluation.reporting.values import mapping, number

MAX_DATA = 300
"""Characters of the data's description that are shown."""

_COMPARED = re.compile(r"^(held-out part of |[\d,]+ samples against [\w -]{1,40}? of )")
"""What an evaluation says before the name of the data."""


def facts(run: Run) -> Html:
    """Steps, time, speed, restarts as a row of terms and values, and the data in a line of its own."""
    shown = [element("div", element("dt", k), element("dd", v)) for k, v in fact_texts(run).items()]
    if data := _data(run):
        shown.append(element("div", element("dt", "Data"), element("dd", data), class_="wide"))
    return element("dl", shown, class_="facts") if shown else Html("")


def fact_texts(run: Run) -> dict[str, str]:
    """Steps, time, speed, restarts by name, as far as they are known."""
    known = {
        "Steps": _steps(run),
        "Training time": _training_time(run),
        "Speed": _speed(run),
        "Seen": _seen(run),
        "Workers": _whole(run.status, "world"),
        "Time left": _eta(run),
        "Restarts": _restarts(run),
    }
    return {name: text for name, text in known.items() if text}


def section_of(run: Run, name: str) -> Mapping[str, Any]:
    """A section of config.yaml as it is; empty where there is none, or where the file is damaged."""
    try:
        return mapping(mapping(yaml.safe_load(run.config)).get(name))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}


def _data(run: Run) -> str:
    """Text, tokens and windows as the evaluation found them; before it what the configuration says."""
    known = run.evaluation.get("data")
    if isinstance(known, str) and known:
        return _COMPARED.sub("", known[:MAX_DATA])
    settings = section_of(run, "data")
    parts = [settings.get("name"), settings.get("path") or settings.get("id"), settings.get("split")]
    return " ".join(part[:MAX_DATA] for part in parts if isinstance(part, str))


def _steps(run: Run) -> str:
    done = max([number(run.status.get("step")), *run.train.steps[-1:]], key=lambda s: -1 if math.isnan(s) else s)
    planned = number(run.status.get("steps"))
    if math.isnan(done):
        return ""
    return f"{done:,.0f} of {planned:,.0f}" if math.isfinite(planned) else f"{done:,.0f}"


def training_seconds(run: Run) -> float:
    """Seconds that its steps took, those of all starts together; 0 before the first."""
    return float(run.train.series("seconds")[1].sum())


def _training_time(run: Run) -> str:
    seconds = training_seconds(run)
    return duration(seconds) if seconds else ""


def _speed(run: Run) -> str:
    for key, unit in (("tokens_per_second", "tokens/s"), ("samples_per_second", "samples/s")):
        values = run.train.series(key)[1]
        if len(values):
            return f"{compact(float(np.median(values[len(values) // 5 :])))} {unit}"
    return ""


def _seen(run: Run) -> str:
    for key in ("tokens", "samples"):
        values = run.train.series(key)[1]
        if len(values):
            return f"{compact(float(values[-1]))} {key}"
    return ""


def _whole(source: Mapping[str, Any], key: str) -> str:
    value = number(source.get(key))
    return f"{value:,.0f}" if math.isfinite(value) else ""


def _eta(run: Run) -> str:
    seconds = number(run.status.get("eta_seconds"))
    return duration(seconds) if run.state == "running" and seconds > 0 else ""


def _restarts(run: Run) -> str:
    count, lost = number(run.status.get("restarts")), number(run.status.get("lost_seconds"))
    if not count > 0:
        return ""
    return f"{count:,.0f}, {duration(lost)} lost" if lost > 0 else f"{count:,.0f}"
