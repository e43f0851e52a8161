"""Evaluation and samples of a run in a few lines, as the terminal shows them."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.estimate import format_value
from evaluation.figure_names import KNOWN_FIGURES, chief_figures, out_of
from evaluation.reporting.folder import plain_path
from evaluation.reporting.pictures import KINDS
from launch.folder import read_json

MASK = "▁"
"""Stands for a masked token in displayed text."""

LONGEST = 60
"""Characters of a text that are shown in one line."""

WIDEST = 120
"""Columns of a table of figures."""


def result_lines(folder: Path, shown: str) -> Iterator[tuple[str, str]]:
    """(label, text) of what a complete run has to show."""
    evaluation = read_json(folder / "evaluation.json")
    if evaluation.get("figures"):
        yield "evaluate", evaluation_line(evaluation)
    samples = sorted((folder / "samples").glob("step_*.json"), key=lambda path: (len(path.name), path.name))
    if samples and (line := _newest_file(samples, shown) or sample_line(read_json(samples[-1]))):
        yield "sample", line
    if (folder / "report.html").exists():
        yield "report", f"{shown}/report.html"


def _newest_file(samples: Sequence[Path], shown: str) -> str:
    """Path of the newest picture or enhanced sound that is there; "" where the newest samples are texts."""
    for path in reversed(samples):
        found = [item for item in _items(read_json(path)) if item.get("kind") in KINDS]
        if not found:
            return ""
        for item in found:
            name = dict(item.get("sounds") or {}).get("enhanced") if item["kind"] == "speech" else item.get("file")
            file = plain_path(path.parent, name) if item["kind"] != "neighbours" else None
            if file is not None and file.is_file():
                return f"{shown}/samples/{file.name}"
    return ""


def _items(samples: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in samples.get("items") or [] if isinstance(item, dict)]


def evaluation_line(evaluation: dict[str, Any]) -> str:
    """The first figure with its data and protocol, and the bigram baseline beside it; of images up to three figures."""
    figures: dict[str, dict[str, Any]] = evaluation["figures"]
    key, main = next(iter(figures.items()))
    if key in KNOWN_FIGURES:
        parts = [f"{figure_name(name)} {measured(figures[name], name)}" for name in chief_figures(figures)]
        extractor = f", features of extractor {evaluation['extractor']}" if evaluation.get("extractor") else ""
        return f"{' · '.join(parts)} ({evaluation.get('data') or main.get('protocol', '')}{extractor})"
    text = f"{figure_name(key)} {measured(main)} ({_protocol(evaluation, main)})"
    bigram = figures.get("bigram")
    return f"{text} · bigram baseline {with_error(bigram)}" if bigram and key != "bigram" else text


def _protocol(evaluation: dict[str, Any], figure: dict[str, Any]) -> str:
    """Data and count of a figure: "held-out part of DATA, 96 windows x 16 strata" (bounds are estimated in strata)."""
    data, n, draws = evaluation.get("data"), figure.get("n"), evaluation.get("draws")
    if not data or not n:
        return str(figure.get("protocol", ""))
    strata = f" x {draws} strata" if draws and figure.get("bound") else ""
    return f"{data}, {n} windows{strata}"


def figure_name(key: str) -> str:
    """How a figure's key is written."""
    if key in KNOWN_FIGURES:
        return KNOWN_FIGURES[key].inline
    first, *rest = key.split("_")
    return " ".join([{"elbo": "ELBO", "nll": "NLL"}.get(first, first), *rest])


def with_error(figure: dict[str, Any]) -> str:
    """A value with its standard error, or the remark that none is known."""
    value, error = (figure.get(name) for name in ("value", "stderr"))
    numbers = [float(x) if isinstance(x, int | float) else math.nan for x in (value, error)]
    return format_value(*numbers)


def measured(figure: dict[str, Any], key: str = "") -> str:
    """Value, error and unit; of modes, how many there are."""
    return f"{with_error(figure)} {figure.get('unit') or out_of(key, str(figure.get('protocol') or ''))}".rstrip()


def figures_table(evaluation: dict[str, Any]) -> str:
    """All figures of an evaluation, one a line, below what they were measured on.

    Protocols that fit stand beside their figures; longer ones are notes below, each once for all figures it holds for.
    """
    step, model = evaluation.get("step"), evaluation.get("model")
    figures: dict[str, dict[str, Any]] = evaluation.get("figures", {})
    protocols = {key: _protocol_parts(figure) for key, figure in figures.items()}
    shared = [part for part in next(iter(protocols.values()), []) if all(part in parts for parts in protocols.values())]
    head = ", ".join(filter(None, [f"step {step}", f"{model} weights", evaluation.get("data"), *shared]))
    rows = [
        (figure_name(key), measured(figure, key), ", ".join(part for part in protocols[key] if part not in shared))
        for key, figure in figures.items()
    ]
    lines = _aligned(rows)
    if max(map(len, lines), default=0) <= WIDEST:
        return "\n".join([head, *lines])
    marks = {text: f"[{number}]" for number, text in enumerate(dict.fromkeys(text for *_, text in rows if text), 1)}
    notes = [line for text, mark in marks.items() for line in _note(mark, text)]
    return "\n".join([head, *_aligned([(name, value, marks.get(text, "")) for name, value, text in rows]), *notes])


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    name, value = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return [f"  {row[0]:<{name}}  {row[1]:<{value}}  {row[2]}".rstrip() for row in rows]


def _note(mark: str, text: str) -> list[str]:
    indent = " " * (len(mark) + 3)
    return textwrap.wrap(text, WIDEST, initial_indent=f"  {mark} ", subsequent_indent=indent, break_on_hyphens=False)


def _protocol_parts(figure: dict[str, Any]) -> list[str]:
    """How a figure was measured, in parts; its count comes last where the protocol does not say it."""
    parts = [part for part in str(figure.get("protocol") or "").split(", ") if part]
    n = figure.get("n")
    told = any(part.startswith(f"{n:,} ") for part in parts) if n else True
    return parts if told else [*parts, f"n={n:,}"]


def sample_line(samples: dict[str, Any]) -> str:
    """One infilling (or else one sample) as prompt and text."""
    items = [item for item in _items(samples) if item.get("kind") not in KINDS]
    item = next((i for i in items if i.get("kind") == "infill"), items[0] if items else None)
    if item is None:
        return ""
    text = str(item.get("text", ""))
    if item.get("kind") != "infill":
        return _quote(text, 0)
    prompt = str(item["prompt"])
    begin = max(0, prompt.find(MASK) - LONGEST // 3)
    return f"{_quote(prompt, begin)} -> {_quote(text, begin)}"


def _quote(text: str, begin: int) -> str:
    """A part of a text; "…" where something is left out."""
    part = text[begin : begin + LONGEST]
    before, after = "…" if begin else "", "…" if len(text) > begin + LONGEST else ""
    return json.dumps(f"{before}{part}{after}", ensure_ascii=False)
