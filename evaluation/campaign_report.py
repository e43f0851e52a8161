"""The report of a scaling-law campaign: one page with its figures in it, also of a campaign that is half done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.canvas import rendered
from evaluation.reporting.markup import Html, element, fact_list, join, moment, text_table
from evaluation.reporting.page import Section, page, section
from evaluation.reporting.pictures import Picture, png_size
from evaluation.scaling import published
from evaluation.scaling.family import FamilyLaws
from evaluation.scaling.figures import campaign as campaign_figures
from evaluation.scaling.figures import laws as law_figures
from evaluation.scaling.figures import quality
from evaluation.scaling.figures.campaign import Spend
from evaluation.scaling.gap import Frontier, Gap
from evaluation.scaling.holdout import coverage, mean_width, worst_error
from evaluation.scaling.parametric import intervals
from generative.errors import GenerativeError

BOUND_NOTE = (
    "A loss that is a bound (masked diffusion) stands above the likelihood: its reducible part is divergence plus the "
    "gap of the bound, and is not compared with a likelihood as if both were the same."
)
FIXED_NOTE = "One batch and learning rate for all sizes inflates the exponent of N_opt (Porian et al. 2024)."
"""For campaigns without a rule for batch and learning rate."""

Figure = tuple[str, Callable[[], Any]]
"""Title, and what draws it."""


@dataclass(frozen=True)
class CampaignFacts:
    """What the report tells.

    Args:
        name: of the campaign.
        facts: short ones by name: cells done, FLOPs, conventions, rules.
        families: laws of each, the one that needs most compute first.
        gap: of the first two families (slow, fast, gap), or None.
        no_gap: why there is none.
        spend: by budget.
        limit: FLOPs in all, or None.
        cells: rows (cell, state, N, D, C, loss, seconds, cause).
        next_cells: what to run next, a line each.
        at: budget for which the parameters of laws are told.
        note: what to beware of in all numbers.
    """

    name: str
    facts: Mapping[str, str]
    families: Sequence[FamilyLaws]
    gap: tuple[Frontier, Frontier, Gap] | None
    no_gap: str
    spend: Sequence[Spend]
    limit: float | None
    cells: Sequence[Sequence[str]]
    next_cells: Sequence[str]
    at: float
    note: str = ""


def build_campaign_report(told: CampaignFacts) -> str:
    """The page as text."""
    header = join(
        [
            element("p", "Scaling-law campaign", class_="eyebrow"),
            element("h1", told.name),
            fact_list(told.facts),
        ]
    )
    to_do = element("ul", [element("li", line) for line in told.next_cells]) if told.next_cells else Html("")
    parts: list[Section | None] = [section("next", "Next cells", "What is missing for a law.", to_do, "Next")]
    for laws in told.families:
        parts += _family(laws, told.at, told.note)
    parts.append(section("gap", "Compute gap", told.no_gap or BOUND_NOTE, _gap(told), "Gap"))
    spend = _pictures([("Spend ledger", lambda: campaign_figures.spend_ledger(told.spend, told.limit))])
    parts.append(section("spend", "Where the compute went", "", spend, "Spend"))
    header_row = ("cell", "state", "N", "D", "C", "loss", "seconds", "why")
    parts.append(section("cells", "Cells", "", text_table(header_row, told.cells)))
    footer = element("p", f"Built {moment(time.time())}. This page loads nothing.")
    return page(f"{told.name} · campaign", header, [p for p in parts if p], footer, {"charts": [], "replays": []})


def _family(laws: FamilyLaws, at: float, note: str) -> Iterator[Section | None]:
    """Curves and sizes, quality of the fits, and the numbers."""
    name, points = laws.name, laws.points
    trouble = "; ".join(f"{what}: {why}" for what, why in laws.problems)
    if points is None:
        yield section(name, name, "", element("p", trouble or "no runs yet", class_="quiet"))
        return
    figures: list[Figure] = [
        ("Loss over size", lambda: law_figures.isoflop_curves(points, laws.valleys)),
        ("Best size and length", lambda: law_figures.optima(laws.isoflop, laws.valleys)),
    ]
    if laws.curves:
        figures.append(("Envelope of training curves", lambda: law_figures.envelope(laws.curves, laws.envelope)))
    if (power := laws.power) is not None:
        figures.append(("Reducible loss", lambda: law_figures.reducible(power)))
    if laws.surface is not None and laws.draws is not None:
        surface, draws = laws.surface, laws.draws
        figures += [
            ("Surface and frontier", lambda: quality.contour(surface, laws.k)),
            ("Residuals", lambda: quality.residuals(surface)),
            ("Bootstrap", lambda: quality.pairs(surface, draws)),
        ]
    figures.append(("Budgets left out in turn", lambda: quality.predicted(laws.held_out)))
    if laws.ahead:
        figures.append(("The largest budget from all smaller ones", lambda: quality.predicted(laws.ahead)))
    yield section(name, name, trouble, _pictures(figures))
    yield section(f"{name}-numbers", f"{name}: numbers", note, _numbers(laws, at))
    checks = text_table(("check", "", "found"), [(c.name, "ok" if c.ok else "WARNING", c.text) for c in laws.checks])
    yield section(f"{name}-checks", f"{name}: checks", "What to know before trusting a fit.", checks)


def _numbers(laws: FamilyLaws, at: float) -> Html:
    rows: list[tuple[str, str, str]] = []
    if laws.surface is not None and laws.draws is not None:
        for name, ratio in intervals(laws.surface, laws.draws, at, k=laws.k).items():
            rows.append((name, str(ratio), f"surface; {ratio.estimate.protocol}"))
    if laws.isoflop is not None:
        for name, line in (("N_opt exponent", laws.isoflop.N_opt), ("D_opt exponent", laws.isoflop.D_opt)):
            rows.append((name, f"{line.slope:.3f}", "IsoFLOP minima"))
    if laws.power is not None:
        law = laws.power.law
        rows.append(("L(C)", f"{law.floor:.4g} + ({law.x0:.3g} / C)^{law.exponent:.3g}", laws.power.protocol))
    predicted = {
        "left-out budgets": laws.held_out,
        "largest budget": laws.ahead,
        "budgets above a tenth of the largest": laws.back,
    }
    for name, runs in predicted.items():
        if runs:
            for estimate in (coverage(runs), mean_width(runs), worst_error(runs)):
                rows.append((name, str(estimate), estimate.protocol))
    if (best := laws.best) is not None:
        laws_tried = "; ".join(f"{law} {error:+.1%}" for law, error in best.tried.items())
        found = f"{best.predicted}; measured {best.measured:.4f} ({best.error:+.2%})"
        how = f"{best.by}, chosen by the budget before it ({laws_tried}); {best.predicted.estimate.protocol}"
        rows.append(("best loss of the largest budget", found, how))
    known = {**published.HOFFMANN_EXPONENTS, "diffusion (Quokka)": published.QUOKKA_EXPONENT}
    for name, exponents in known.items():
        rows.append((f"published: {name}", f"a = {exponents.a:.3g}", str(exponents.source)))
    return text_table(("quantity", "value", "by"), rows)


def _gap(told: CampaignFacts) -> Html:
    if told.gap is None:
        return Html("")
    slow, fast, gap = told.gap
    sentence = f"{slow.name} needs {gap} times the compute of {fast.name} for the same loss. {gap.factor.protocol}"
    return join(
        [
            element("p", sentence),
            _pictures([("Best losses of both", lambda: campaign_figures.compute_gap(slow, fast, gap))]),
            text_table(("check", "", "found"), [(c.name, "ok" if c.ok else "WARNING", c.text) for c in gap.checks]),
        ]
    )


def _pictures(figures: Sequence[Figure]) -> Html:
    """Figures one after the other; one that cannot be drawn says why."""
    found: list[Html] = []
    for title, draw in figures:
        try:
            content = rendered(draw(), "png")
        except GenerativeError as error:
            found.append(element("p", f"{title}: {error.problem}", class_="quiet"))
            continue
        size = png_size(content)
        assert size is not None
        picture = Picture(content, *size, title, "")
        found.append(element("figure", picture.tag(size[0] // 2), element("figcaption", title)))
    return element("div", found, class_="pictures")
