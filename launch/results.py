"""Evaluation and samples of a run in a few lines, as the terminal shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.folder import read_json

MASK = "▁"
"""Stands for a masked token in displayed text."""

LONGEST = 60
"""Characters of a text that are shown in one line."""


def result_lines(folder: Path, shown: str) -> Iterator[tuple[str, str]]:
    """(label, text) of what a complete run has to show."""
    figures = read_json(folder / "evaluation.json").get("figures")
    if figures:
        yield "evaluate", evaluation_line(figures)
    samples = sorted((folder / "samples").glob("step_*.json"))
    if samples and (line := sample_line(read_json(samples[-1]))):
        yield "sample", line
    if (folder / "report.html").exists():
        yield "report", f"{shown}/report.html"


def evaluation_line(figures: dict[str, dict[str, Any]]) -> str:
    """The first figure with its protocol, and the bigram baseline beside it."""
    key, main = next(iter(figures.items()))
    text = f"{figure_name(key)} {with_error(main)} {main.get('unit', '')} ({main.get('protocol', '')})"
    bigram = figures.get("bigram")
    return f"{text} · bigram baseline {bigram['value']:.3g}" if bigram and key != "bigram" else text


def figure_name(key: str) -> str:
    """How a figure's key is written."""
    return {"elbo": "ELBO", "nll": "NLL"}.get(key, key.replace("_", " "))


def with_error(figure: dict[str, Any]) -> str:
    """A value with its standard error, to the digits that the error leaves."""
    value, error = figure.get("value"), figure.get("stderr")
    if not isinstance(value, int | float):
        return "not finite"
    if not isinstance(error, int | float) or error <= 0:
        return f"{value:.4g}"
    digits = max(0, -int(f"{error:.0e}".split("e")[1]))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def figures_table(evaluation: dict[str, Any]) -> str:
    """All figures of an evaluation, one a line, with what they were measured on."""
    lines = [f"step {evaluation.get('step')}, {evaluation.get('model')} weights"]
    figures = evaluation.get("figures", {})
    width = max((len(figure_name(key)) for key in figures), default=0)
    for key, figure in figures.items():
        n = f", n={figure['n']}" if figure.get("n") else ""
        protocol = f"  ({figure.get('protocol', '')}{n})"
        lines.append(f"  {figure_name(key):<{width}}  {with_error(figure)} {figure.get('unit', '')}{protocol}")
    return "\n".join(lines)


def sample_line(samples: dict[str, Any]) -> str:
    """One infilling (or else one sample) as prompt and text."""
    items = samples.get("items") or []
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
