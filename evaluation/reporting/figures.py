"""The figures of a run: which one is the headline, what it is compared with, the table of all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluation.estimate import Estimate, format_value
from evaluation.figure_names import KNOWN_FIGURES, FigureName, out_of
from evaluation.reporting.curves import smooth
from evaluation.reporting.folder import Run
from evaluation.reporting.markup import Html, element
from evaluation.reporting.values import mapping

MAX_FIGURES = 100
MAX_BESIDE = 5
LABELS = {
    "elbo": "ELBO",
    "nll": "Negative log-likelihood",
    "unigram": "Unigram counts",
    "bigram": "Bigram counts",
    "trigram": "Trigram counts",
    "infill_both_sides": "Infilling, both sides given",
    "infill_left_only": "Infilling, left side only",
    "infill_gain": "Infilling, gain from the right side",
}
_BASELINE = re.compile(r"unigram|bigram|trigram|\d+-gram")


@dataclass(frozen=True)
class Figure:
    """A named estimate."""

    key: str
    estimate: Estimate

    @property
    def label(self) -> str:
        """What a person reads."""
        key = self.key.removesuffix("_nats_per_token")
        words = key.replace("_", " ")
        return LABELS.get(key) or (self.known.label if self.known else "") or words[:1].upper() + words[1:]

    @property
    def known(self) -> FigureName | None:
        """What there is to say of a figure of images."""
        return KNOWN_FIGURES.get(self.key)

    @property
    def unit(self) -> str:
        """Of value and error; for a count, of how many."""
        return self.estimate.unit or out_of(self.key, self.estimate.protocol)

    @property
    def remark(self) -> str:
        """'upper bound', 'baseline', 'lower is better', where it is so."""
        better = f"{self.known.better} is better" if self.known else ""
        return ", ".join(filter(None, [bound_word(self.estimate), better])) or ("baseline" if self.baseline else "")

    @property
    def baseline(self) -> bool:
        """Whether it is something simple to compare with."""
        return bool(_BASELINE.fullmatch(self.key))

    @property
    def number(self) -> str:
        """'3.27 ± 0.02'."""
        return format_value(self.estimate.value, self.estimate.stderr)


def figures(run: Run) -> list[Figure]:
    """All figures of evaluation.json that can be read, in their order."""
    return list(_readable(run))[:MAX_FIGURES]


def _readable(run: Run) -> Iterator[Figure]:
    for key, data in mapping(run.evaluation.get("figures")).items():
        try:
            figure = Figure(str(key), Estimate.from_json(mapping(data)))
        except ValueError:
            continue
        if math.isfinite(figure.estimate.value):
            yield figure


def headline(run: Run) -> Figure | None:
    """The FID, or else the first evaluated figure that is no baseline; before the evaluation the newest coverage of
    modes or the last validation; else the loss."""
    evaluated = sorted((f for f in figures(run) if not f.baseline), key=lambda f: f.key != "fid")
    return evaluated[0] if evaluated else _watched(run) or _validation(run) or _training(run)


def _watched(run: Run) -> Figure | None:
    """Mode coverage during the training: the losses of a GAN do not tell how good its samples are."""
    steps, values = run.monitor.series("metrics", "coverage")
    if not len(values):
        return None
    protocol = f"of samples drawn at step {steps[-1]:,.0f}; the evaluation has not been written yet"
    return Figure("coverage", Estimate(float(values[-1]), None, 0, "", protocol))


def _validation(run: Run) -> Figure | None:
    for update in run.updates:
        steps, values = run.validation.series("loss", update, "value")
        if len(values):
            count = run.validation.series("loss", update, "n")[1]
            error = run.validation.series("loss", update, "stderr")[1]
            protocol = f"held-out, after step {steps[-1]:,.0f}; the evaluation has not been written yet"
            stderr = float(error[-1]) if len(error) else None
            estimate = Estimate(float(values[-1]), stderr, int(count[-1]) if len(count) else 0, "", protocol)
            return Figure("validation_loss", estimate)
    return None


def _training(run: Run) -> Figure | None:
    for update in run.updates:
        steps, values = run.train.series("loss", update)
        if len(values):
            moving = smooth(values)
            stderr = float(moving.high[-1] - moving.mean[-1]) / 2
            protocol = f"moving mean at step {steps[-1]:,.0f}; nothing held out has been scored yet"
            return Figure("training_loss", Estimate(float(moving.mean[-1]), stderr, len(values), "", protocol))
    return None


def comparison(run: Run) -> list[Figure]:
    """The headline and the baselines in its unit, the best (lowest) first; empty without a baseline."""
    head = headline(run)
    rivals = [f for f in figures(run) if head and f.baseline and f.estimate.unit == head.estimate.unit]
    return sorted([head, *rivals], key=lambda f: f.estimate.value) if head and rivals else []


def beside(run: Run) -> list[Figure]:
    """Figures that complete the headline of an image model, in the order of their weight."""
    head, found = headline(run), {f.key: f for f in figures(run)}
    if head is None or head.known is None:
        return []
    return [found[key] for key in KNOWN_FIGURES if key in found and key != head.key][:MAX_BESIDE]


def infilling(run: Run) -> list[Figure]:
    """Figures of the infilling check that share a unit and can be drawn on one axis."""
    found = [f for f in figures(run) if f.key in ("infill_both_sides", "infill_left_only")]
    return found if len({f.estimate.unit for f in found}) == 1 else []


def summary(run: Run) -> str:
    """One sentence on how the headline stands against the baselines, or on which way is better."""
    compared, head = comparison(run), headline(run)
    if head and head.known:
        return f"{': '.join(filter(None, [f'{head.known.better.capitalize()} is better', head.known.means]))}."
    if not compared or head is None:
        return ""
    better = [_short(f) for f in compared if f.baseline and f.estimate.value > head.estimate.value]
    worse = [_short(f) for f in compared if f.baseline and f.estimate.value <= head.estimate.value]
    parts = [f"below (better than) {_and(better)}" if better else "", f"above {_and(worse)}" if worse else ""]
    return f"It lies {', but '.join(p for p in parts if p)}."


def _short(figure: Figure) -> str:
    return f"{figure.label.lower()} at {figure.number}"


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def bound_word(estimate: Estimate) -> str:
    """'upper bound', 'lower bound' or ''."""
    return f"{estimate.bound} bound" if estimate.bound else ""


def figure_table(run: Run) -> Html:
    """The table of all figures, model first, then baselines."""
    rows = sorted(figures(run), key=lambda f: f.baseline)
    names = ("Figure", "Value ± standard error", "Unit", "n", "", "Protocol")
    head = element("tr", [element("th", name, scope="col") for name in names])
    above = [None, *rows[:-1]] if rows else []
    body = element("tbody", [_row(*pair) for pair in zip(rows, above, strict=True)])
    return element("table", element("thead", head), body, class_="figures")


def _row(figure: Figure, above: Figure | None) -> Html:
    one = figure.estimate
    # Figures of images come in groups that share a long protocol.
    repeated = bool(figure.known and above and one.protocol and one.protocol == above.estimate.protocol)
    return element(
        "tr",
        element("th", figure.label, scope="row"),
        element("td", figure.number, class_="number"),
        element("td", figure.unit, class_="number"),
        element("td", f"{one.n:,}" if one.n else "", class_="number"),
        element("td", figure.remark, class_="kind-of"),
        element("td", "as above" if repeated else one.protocol, class_="protocol"),
        class_="baseline" if figure.baseline else None,
    )


def dot_plot(rows: Sequence[Figure], name: str, highlight: str) -> Html:
    """Values with bars of two standard errors on one axis: an SVG in percent, which fits any width without a script."""
    spans = [(f.estimate.value, 2 * (f.estimate.stderr or 0.0)) for f in rows]
    low, high = min(v - e for v, e in spans), max(v + e for v, e in spans)
    width = (high - low) or abs(high) or 1.0

    def at(value: float) -> str:
        # The track takes the part between the names on the left and the values on the right.
        return f"{44 + 32 * (value - low) / width:.2f}%"

    parts = []
    for index, (figure, (value, error)) in enumerate(zip(rows, spans, strict=True)):
        y = 16 + 30 * index
        tone = "model" if figure.key == highlight else None
        parts += [
            element("line", x1="42%", x2="78%", y1=y, y2=y, class_="track"),
            element("line", x1=at(value - error), x2=at(value + error), y1=y, y2=y, class_="bar"),
            element("circle", cx=at(value), cy=y, r=5),
            element("text", figure.label, x="0", y=y, dy="0.34em"),
            element("text", figure.number, x="100%", y=y, dy="0.34em", text_anchor="end", class_="value"),
        ]
        parts[-5:] = [element("g", parts[-5:], class_=tone)]
    told = "; ".join(f"{f.label}: {f.estimate}" for f in rows)
    return element("svg", parts, class_="dots", height=30 * len(rows) + 4, role="img", aria_label=f"{name}. {told}")
