"""Charts of the numbers that a method reports beside its losses: terms, scores, weights."""

from __future__ import annotations

from evaluation.reporting.chart import Chart, Series, chart_of, raw_and_smooth
from evaluation.reporting.curves import Floats, value_range
from evaluation.reporting.folder import Run

MAX_CHARTS = 24
MORE = "_more"
"""Ends the name of an update that repeats another one within a step: discriminator, discriminator_more."""

TOGETHER = {
    ("real", "fake"): (
        "Scores",
        "Means that the discriminator gives to real and to generated samples; far apart, it tells them apart.",
    ),
    ("entropy", "nearest"): (
        "Entropy",
        "The term without its weight, and how near a code lies to the nearest other one (mean square or cosine).",
    ),
}
"""Numbers that are read against each other: title and note of their chart."""

NAMES = {
    "adversarial": "adversarial term",
    "dlle": "DLLE",
    "disomap": "DIsoMap",
    "entropy": "entropy term",
    "entropy_weight": "weight of the entropy",
    "nearest": "nearest code",
    "real": "real samples",
    "fake": "generated samples",
    "r1": "R1 penalty",
    "r2": "R2 penalty",
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
            title = f"{_title(group)}: {first}" if len(families) > 1 else _title(group)
            charts.append(_chart(run, family, group, title))
    return [chart for chart in charts if chart][:MAX_CHARTS]


def _groups(run: Run, family: list[str]) -> list[tuple[str, ...]]:
    """Names of the numbers of some updates in the method's own order, those that belong together as one."""
    names = dict.fromkeys(name for update in family for name in run.train.names("metrics", update))
    whole = {name: group for group in TOGETHER if set(group) <= set(names) for name in group}
    return list(dict.fromkeys(whole.get(name, (name,)) for name in names))


def _title(group: tuple[str, ...]) -> str:
    name = TOGETHER[group][0] if group in TOGETHER else _name(group[0])
    return name[:1].upper() + name[1:]


def _name(name: str) -> str:
    return NAMES.get(name) or name.replace("_", " ").lower()


def _chart(run: Run, family: list[str], group: tuple[str, ...], title: str) -> Chart | None:
    series: list[Series] = []
    values: list[Floats] = []
    for update in family:
        for name in group:
            x, y = run.train.series("metrics", update, name)
            further = update != family[0]
            label = f"{_name(name)}, further updates" if further else _name(name)
            tone = str(len(values)) if len(family) * len(group) > 1 else "5"
            lines = raw_and_smooth(label, tone, x, y)
            series += lines[1:] if further else lines  # the faint single steps of all would hide one another
            values.append(y)
    note = TOGETHER[group][1] if group in TOGETHER else ""
    return chart_of(f"metric-{family[0]}-{group[0]}", title, series, "", value_range(values), note=note)
