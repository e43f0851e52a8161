"""Charts of the numbers that a method reports beside its losses: terms, scores, weights."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.reporting.chart import Chart, Series, chart_of, raw_and_smooth
from evaluation.reporting.curves import Floats, value_range
from evaluation.reporting.folder import Run

MAX_CHARTS = 24
MORE = "_more"
"""Ends the name of an update that repeats another one within a step: discriminator, discriminator_more."""


@dataclass(frozen=True)
class _Together:
    """Numbers that are read against each other in one chart."""

    title: str
    labels: dict[str, str]
    note: str


TOGETHER = (
    _Together(
        "Scores",
        {"real": "real samples", "fake": "generated samples"},
        "Means that the discriminator gives to real and to generated samples; far apart, it tells them apart.",
    ),
    _Together(
        "Entropy",
        {"entropy": "entropy term", "nearest": "nearest code"},
        "The term without its weight, and how near a code lies to the nearest other one (mean square or cosine).",
    ),
)

NAMES = {
    "adversarial": "adversarial term",
    "dlle": "DLLE",
    "disomap": "DIsoMap",
    "entropy": "entropy term",
    "entropy_weight": "weight of the entropy",
    "ess": "effective sample size",
    "nearest": "nearest code",
    "real": "score of real samples",
    "fake": "score of generated samples",
    "ratio": "density ratio",
    "r1": "R1 penalty",
    "r2": "R2 penalty",
    "weight_fallback": "updates without weights",
}


def update_name(update: str) -> str:
    """'discriminator'; 'discriminator, further updates' for those that repeat it within a step."""
    first = update.removesuffix(MORE)
    return f"{first.replace('_', ' ')}, further updates" if first and first != update else update


def term_charts(run: Run) -> list[Chart]:
    """A chart for each number, or for some that belong together; an update and its repetitions share theirs."""
    families: dict[str, list[str]] = {}
    for update in run.train.names("metrics"):
        families.setdefault(update.removesuffix(MORE) or update, []).append(update)
    charts = []
    for first, family in families.items():
        for group in _groups(run, family):
            title = group.title[:1].upper() + group.title[1:]
            charts.append(_chart(run, family, group, f"{title}: {first}" if len(families) > 1 else title))
    return [chart for chart in charts if chart][:MAX_CHARTS]


def _groups(run: Run, family: list[str]) -> list[_Together]:
    """Numbers of some updates in the method's own order, those that belong together as one."""
    names = dict.fromkeys(name for update in family for name in run.train.names("metrics", update))
    groups: dict[str, _Together] = {}
    for name in names:
        whole = next((one for one in TOGETHER if name in one.labels and set(one.labels) <= set(names)), None)
        said = NAMES.get(name) or name.replace("_", " ")
        group = whole or _Together(said if name in NAMES else said.capitalize(), {name: said}, "")
        groups.setdefault(next(iter(group.labels)), group)
    return list(groups.values())


def _chart(run: Run, family: list[str], group: _Together, title: str) -> Chart | None:
    series: list[Series] = []
    values: list[Floats] = []
    alone = len(group.labels) == 1
    for update in family:
        further = update != family[0]
        which = "further updates" if further else "first update of a step"
        for name, label in group.labels.items():
            x, y = run.train.series("metrics", update, name)
            label = which if alone and len(family) > 1 else f"{label}, further updates" if further else label
            lines = raw_and_smooth(label, "5" if alone and len(family) == 1 else str(len(values) % 6), x, y)
            series += lines[1:] if further else lines  # the faint single steps of all would hide one another
            values.append(y)
    name = f"metric-{family[0]}-{next(iter(group.labels))}"
    return chart_of(name, title, series, "", value_range(values), note=group.note)
