"""Quality over speed of the ways to generate that `bench masked_diffusion` compares, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.benchmarks.figure import Figure
from evaluation.benchmarks.masked_generation import PARTS, Point, as_good_as, points
from evaluation.canvas import BLUE, GREEN, GREY, ORANGE, canvas, label, note

TITLES = {
    "judged": "judge's bits a byte (lower is better)",
    "entropy": "entropy of a text's bytes, bits",
    "distinct": "share of different 4-grams",
}
MARKS = {"plain": ("o", BLUE), "dual": ("s", GREEN), "blocks": ("^", ORANGE)}
"""By what is kept between calls: nothing, keys and values for an approximation, those of finished blocks."""
LEGEND = {"plain": "no cache", "dual": "dual cache (approximate)", "blocks": "block diffusion, exact cache"}
ALONE = {"reference": ("*", GREY), "autoregressive": ("D", "black")}


def draw(figures: Mapping[str, Figure]) -> Any:
    """Three panels over tokens/s, bars of two standard errors; the band is the reference's.

    Full marks: ways as good as the reference (see `as_good_as`). Ways whose texts have less than half of its entropy
    are named instead of drawn: all others would lie on one line.
    """
    found = points(figures)
    reference = found["reference"].quality
    shown = {name: one for name, one in found.items() if one.quality["entropy"][0] >= reference["entropy"][0] / 2}
    figure, panels = canvas(len(PARTS), width=4.4, height=4.6)
    for axes, part in zip(panels, PARTS, strict=True):
        label(axes, "tokens/s", TITLES[part], log="x")
        value, error = reference[part]
        axes.axhspan(value - 2 * error, value + 2 * error, color=GREY, alpha=0.15, linewidth=0)
        for name, point in shown.items():
            _mark(axes, name, point, part, good=as_good_as(point.quality, reference))
    if hidden := sorted({name.removeprefix("blocks_").removesuffix("_dual") for name in found.keys() - shown.keys()}):
        note(panels[1], f"not drawn, texts hardly vary: {', '.join(hidden).replace('_', ' ')}")
    _legend(figure, panels[0])
    return figure


def _mark(axes: Any, name: str, point: Point, part: str, good: bool) -> None:
    value, error = point.quality[part]
    kind = "blocks" if name.startswith("blocks") else "dual" if name.endswith("dual") else "plain"
    shape, colour = ALONE.get(name, MARKS[kind])
    axes.errorbar(
        point.rate,
        value,
        yerr=2 * error,
        fmt=shape,
        color=colour,
        markerfacecolor=colour if good or name in ALONE else "white",
        markersize=9 if shape == "*" else 5,
        linewidth=0.8,
    )
    if name not in ALONE:
        axes.annotate(short(name), (point.rate, value), (4, 3), textcoords="offset points", fontsize=6.5)


def short(name: str) -> str:
    """Tokens a call where they are fixed; the bound on entropy or the chance that decides where they are not."""
    way = name.removeprefix("blocks_").removesuffix("_dual")
    kind, _, value = way.rpartition("_")
    return {"first_hitting": "1", "random": value, "entropy": f"≤{value}", "threshold": f"p{value}"}.get(
        "first_hitting" if way == "first_hitting" else kind, way
    )


def _legend(figure: Any, axes: Any) -> None:
    for kind, (shape, colour) in MARKS.items():
        axes.plot([], [], shape, color=colour, markersize=5, label=LEGEND[kind])
    axes.plot([], [], "*", color=GREY, markersize=9, label="reference: one at a time, no cache")
    axes.plot([], [], "D", color="black", markersize=5, label="autoregressive, cache")
    axes.plot([], [], "o", color=BLUE, markerfacecolor="white", markersize=5, label="hollow: not as good")
    axes.plot([], [], " ", label="numbers: tokens a call;")
    axes.plot([], [], " ", label="≤h: all places of at most h nats")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
