"""`generative campaign status` and `report`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from evaluation.campaign_report import FIXED_NOTE, CampaignFacts, build_campaign_report
from evaluation.quantities import compact, duration
from evaluation.scaling.family import FamilyLaws, gap_of_families
from evaluation.scaling.figures.campaign import Spend
from evaluation.scaling.gap import Frontier, Gap
from generative.errors import GenerativeError
from generative.training.runfolder import atomic_write, write_json
from launch.campaign.coordinates import coordinates_text
from launch.campaign.ledger import DONE, totals
from launch.campaign.opened import Campaign
from launch.campaign.passes import passes
from launch.campaign.results import Entries, laws, next_cells, spend, states
from launch.folder import flatten


def status_lines(campaign: Campaign) -> list[tuple[str, str]]:
    """Where a campaign stands, without any fit."""
    entries = campaign.entries()
    found = states(campaign, entries)
    counts = {state: list(found.values()).count(state) for state in dict.fromkeys(found.values())}
    spent, wasted = totals(entries.values())
    planned = sum(job.flops for job in campaign.jobs)
    left = sum(job.flops for job in campaign.jobs if entries[job.hash].state != DONE)
    seconds = sum(float(entry.result.get("seconds") or 0.0) for entry in entries.values())
    lines = [
        ("campaign", f"{campaign.config.name} · {len(campaign.jobs)} jobs, {len(campaign.grid.cells)} of them cells"),
        ("states", ", ".join(f"{count} {state}" for state, count in counts.items())),
        ("flops", f"planned {planned:.4g} · spent {spent:.4g} · lost {wasted:.3g} · left {left:.4g}"),
    ]
    if campaign.config.limit.flops is not None:
        lines.append(
            ("limit", f"{campaign.config.limit.flops:.4g} · {campaign.config.limit.flops - spent - wasted:.4g} free")
        )
    if seconds:
        lines.append(("time", f"{duration(seconds)} in cells that are done"))
    for job in campaign.jobs:
        entry = entries[job.hash]
        if found[job.hash] not in (DONE, "planned"):
            lines.append((found[job.hash].split(" ")[0], f"{job.name}{f': {entry.cause}' if entry.cause else ''}"))
    return lines


def write_report(campaign: Campaign, draws: int = 1000) -> tuple[Path, list[tuple[str, str]]]:
    """report.html, results.csv and laws.json in the campaign's folder; the page, and what to say of it.

    Raises:
        GenerativeError: a damaged ledger, or a folder that cannot be written.
    """
    entries = campaign.entries()
    families = laws(campaign, entries, draws)
    spent = spend(campaign, entries)
    gap, no_gap = _gap(families)
    todo = next_cells(campaign, entries, families)
    told = CampaignFacts(
        name=campaign.config.name,
        facts=_facts(campaign, entries, spent),
        families=families,
        gap=gap,
        no_gap=no_gap,
        spend=spent,
        limit=campaign.config.limit.flops,
        cells=_cells(campaign, entries),
        next_cells=todo,
        at=max(cell.budget for cell in campaign.grid.cells),
        note=FIXED_NOTE if campaign.config.rule.name == "fixed" else "",
    )
    campaign.folder.mkdir(parents=True, exist_ok=True)
    path = campaign.folder / "report.html"
    atomic_write(path, build_campaign_report(told))
    atomic_write(campaign.folder / "results.csv", _csv(campaign, entries))
    write_json(campaign.folder / "laws.json", {one.name: _plain(one) for one in families})
    lines = [line for one in families for line in _law_lines(one)]
    if gap is not None:
        lines.append(("gap", f"{gap[0].name} needs {gap[2]} x the compute of {gap[1].name}"))
    elif no_gap:
        lines.append(("gap", no_gap))
    return path, [*lines, *(("next", line) for line in todo)]


def _gap(families: list[FamilyLaws]) -> tuple[tuple[Frontier, Frontier, Gap] | None, str]:
    if len(families) < 2:
        return None, ""
    try:
        return gap_of_families(families[0], families[1]), ""
    except GenerativeError as error:
        return None, f"not compared: {error.problem}"


def _facts(campaign: Campaign, entries: Entries, spent: list[Spend]) -> dict[str, str]:
    config = campaign.config
    cells = [job for job in campaign.jobs if job.cell]
    done = sum(entries[job.hash].state == DONE for job in cells)
    rule = "each size as configured" if config.rule.name == "fixed" else str(config.rule)
    schedule = f"trunk and decay over the last {config.wsd.decay:.0%}" if config.wsd else "matched to each cell"
    planned, used, lost = (sum(getattr(one, key) for one in spent) for key in ("planned", "spent", "wasted"))
    return {
        "Cells": f"{done} of {len(cells)} done",
        "FLOPs": f"{used:.3g} of {planned:.3g} spent, {lost:.3g} lost",
        "C counts": config.count,
        "Batch and rate": rule,
        **({"Coordinate check": checked} if (checked := coordinates_text(campaign)) else {}),
        "Schedule": schedule,
        **({"Data": "; ".join(f"{name} {text}" for name, text in read.items())} if (read := passes(campaign)) else {}),
        "Seeds": ", ".join(map(str, sorted({cell.seed for cell in campaign.grid.cells}))),
        "Weights": "all runs count alike; held-out windows and masks are the same for all",
    }


def _cells(campaign: Campaign, entries: Entries) -> list[tuple[str, ...]]:
    found = states(campaign, entries)
    rows: list[tuple[str, ...]] = []
    for job in campaign.jobs:
        if job.cell is None:
            continue
        entry = entries[job.hash]
        loss, seconds = entry.result.get("loss"), entry.result.get("seconds")
        numbers = (compact(job.cell.N), compact(job.cell.tokens), f"{job.cell.flops:.4g}")
        shown = ("" if loss is None else f"{loss:.4f}", "" if seconds is None else f"{seconds:.1f}")
        rows.append((job.name, found[job.hash], *numbers, *shown, entry.cause))
    return rows


def _csv(campaign: Campaign, entries: Entries) -> str:
    """All cells with all that is known of them, numbers in full; FLOPs a token in a column for each convention."""
    found, rows = states(campaign, entries), []
    for job in campaign.jobs:
        if (cell := job.cell) is not None:
            asked = {
                "cell": cell.name,
                "family": cell.family,
                "budget": cell.budget,
                "size": cell.size,
                "seed": cell.seed,
            }
            planned = {"state": found[job.hash], "N": cell.N, "D": cell.tokens, "C": cell.flops}
            entry = entries[job.hash]
            rows.append(asked | planned | flatten(dict(entry.result)) | {"cause": entry.cause})
    text = io.StringIO()
    columns = dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _law_lines(one: FamilyLaws) -> list[tuple[str, str]]:
    good = sum(valley.bracketed for valley in one.valleys)
    parts = [f"{good} of {len(one.valleys)} budgets bracketed"]
    if one.isoflop is not None:
        parts.append(f"N_opt ~ C^{one.isoflop.N_opt.slope:.3f}, D_opt ~ C^{one.isoflop.D_opt.slope:.3f} (minima)")
    if one.surface is not None and one.draws is not None:
        parts.append(f"a {one.draws.interval(float(one.surface.surface.a), one.draws.surface.a)} (surface)")
    return [(one.name, " · ".join(parts)), *((one.name, f"no {what}: {why}") for what, why in one.problems)]


def _plain(one: FamilyLaws) -> dict[str, object]:
    surface = one.surface
    return {
        "surface": None
        if surface is None
        else {k: float(getattr(surface.surface, k)) for k in ("E", "A", "B", "alpha", "beta")},
        "N_opt": None if one.isoflop is None else [one.isoflop.N_opt.slope, one.isoflop.N_opt.intercept],
        "D_opt": None if one.isoflop is None else [one.isoflop.D_opt.slope, one.isoflop.D_opt.intercept],
        "minima": [[v.budget, v.N, v.D, v.loss] for v in one.valleys if v.bracketed],
        "not_bracketed": one.to_do,
        "excluded": [] if one.points is None else [[e.run, e.why] for e in one.points.excluded],
        "checks": [[check.name, check.ok, check.text] for check in one.checks],
        "problems": [list(problem) for problem in one.problems],
    }
