"""What a campaign has measured so far, as fits and reports read it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation.scaling.envelope import Curve
from evaluation.scaling.family import FamilyLaws, fit_family
from evaluation.scaling.figures.campaign import Spend
from evaluation.scaling.isoflop import Valley
from generative.errors import ConfigError
from launch.campaign.cells import Cell
from launch.campaign.jobs import Job
from launch.campaign.ledger import DONE, FAILED, PLANNED, RUNNING, Entry, alive
from launch.campaign.opened import Campaign
from launch.campaign.proposal import nearest_size
from launch.campaign.work import losses

Entries = Mapping[str, Entry]


def rows(campaign: Campaign, entries: Entries, family: str) -> list[dict[str, Any]]:
    """Rows of `points.gather` for one family; what diverged or failed comes with its state, so that it is excluded."""
    found = []
    for job in campaign.jobs:
        cell = job.cell
        if cell is None or cell.family != family:
            continue
        entry = entries[job.hash]
        if entry.state in (PLANNED, RUNNING):
            continue
        row = {"run": cell.name, "status": entry.state, "budget": cell.budget, "seed": cell.seed}
        row["cell"] = f"{cell.family} {cell.budget:g} {cell.size}"
        found.append(row | {key: entry.result.get(key) for key in ("N", "D", "C", "loss")})
    return found


def curves(campaign: Campaign, entries: Entries, family: str) -> list[Curve]:
    """Training curves of a family: of its trunks (constant rate), else of its cells."""
    found: list[Curve] = []
    wsd = campaign.config.wsd is not None
    seen: set[str] = set()
    by_hash = {job.hash: job for job in campaign.jobs}
    for job in campaign.jobs:
        if job.cell is None or job.cell.family != family:
            continue
        source = by_hash[job.after] if wsd and job.after else job
        if source.folder in seen or (not wsd and entries[job.hash].state != DONE):
            continue
        seen.add(source.folder)
        steps, loss = losses(campaign.folder / source.folder)
        if len(steps) > 1:
            found.append(_curve(job.cell, source, steps, loss))
    return found


def _curve(cell: Cell, source: Job, steps: list[int], loss: list[float]) -> Curve:
    tokens = np.array(steps, dtype=np.float64) * cell.step_tokens
    schedule = source.run.train.schedule.name
    return Curve(cell.N, tokens * cell.flops_per_token, tokens, np.array(loss), schedule, source.name)


def laws(campaign: Campaign, entries: Entries, draws: int = 1000, family: str | None = None) -> list[FamilyLaws]:
    """The laws of each family, in the order of the configuration; of one alone where it is named."""
    return [
        fit_family(name, rows(campaign, entries, name), curves(campaign, entries, name), draws=draws)
        for name in campaign.config.families
        if family in (None, name)
    ]


def spend(campaign: Campaign, entries: Entries) -> list[Spend]:
    """Planned, spent and lost by budget; a stretch of a trunk counts for the smallest budget that needs it."""
    sums: dict[float, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    heirs = {job.after: job.cell.budget for job in campaign.jobs if job.cell is not None}
    for job in campaign.jobs:
        entry = entries[job.hash]
        own = sums[job.cell.budget if job.cell else heirs[job.hash]]
        for place, amount in enumerate((job.flops, entry.spent, entry.wasted)):
            own[place] += amount
    return [Spend(budget, *amounts) for budget, amounts in sorted(sums.items())]


def states(campaign: Campaign, entries: Entries) -> dict[str, str]:
    """State of each job by hash, as a person reads it: "running" only where its driver gives signs of life."""
    now, found = time.time(), {}
    for key, entry in entries.items():
        state = entry.state
        if state == RUNNING and not alive(campaign.ledger.state_of(key), now):
            state = "lost (goes on with the next run)"
        found[key] = state
    return found


def next_cells(campaign: Campaign, entries: Entries, found: list[FamilyLaws]) -> list[str]:
    """What to run next: cells that are left, then sizes that would bracket a minimum, ready for `extra`."""
    left = [job.cell for job in campaign.jobs if job.cell and entries[job.hash].state in (PLANNED, RUNNING, FAILED)]
    lines = [f"{len(left)} cells of the grid are left: {', '.join(c.name for c in left[:6])}"] if left else []
    planned = {(cell.family, cell.budget) for cell in left}
    for one in found:
        for valley in one.valleys:
            if valley.bracketed or valley.proposal is None or (one.name, valley.budget) in planned:
                continue
            missing = f"{one.name}, budget {valley.budget:.4g}: not bracketed ({valley.why})"
            lines.append(f"{missing}; {_proposed(campaign, one.name, valley)}")
    return lines


def _proposed(campaign: Campaign, family: str, valley: Valley) -> str:
    """The cell that would bracket a minimum; where no shape comes near, its size alone."""
    assert valley.proposal is not None
    try:
        size = nearest_size(campaign, family, valley.proposal, valley.budget)
    except ConfigError as error:
        return f"N of about {valley.proposal:.3g} would be next, but {error.problem}"
    shape = f"layers: {size.layers}, heads: {size.heads}, width: {size.width}, ff_width: {size.ff_width}"
    cell = f"{{family: {family}, budget: {valley.budget!r}, size: {{{shape}}}}}"
    return f"add to extra: {cell}, N about {valley.proposal:.3g}"
