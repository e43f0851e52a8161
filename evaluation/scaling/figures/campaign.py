"""Two families against each other, and where the compute of a campaign went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.canvas import BLUE, GREEN, GREY, ORANGE, band, canvas, label, legend, note, nothing
from evaluation.scaling.figures.laws import drawn_lines
from evaluation.scaling.gap import Frontier, Gap
from evaluation.scaling.lines import Line, fit_line


def compute_gap(slow: Frontier, fast: Frontier, gap: Gap | None) -> Any:
    """Best losses of both families over compute; arrows show the compute between equal losses."""
    figure, (axes,) = canvas(width=5.4, height=3.8)
    for family, colour in ((slow, ORANGE), (fast, BLUE)):
        axes.scatter(family.C, family.loss, s=20, color=colour, zorder=3, label=family.name)
        if len(family.C) > 1:
            grid = np.geomspace(family.C.min(), family.C.max(), 40)
            axes.plot(grid, family.line(grid), color=colour, linewidth=1.2)
            if family.draws is not None:
                lines = fit_line(family.C, family.draws)
                known = np.isfinite(lines.slope)
                if known.any():
                    band(
                        axes, grid, drawn_lines(Line(lines.slope[known], lines.intercept[known]), grid), colour, (0.95,)
                    )
    label(axes, "training FLOPs C", "best loss, nats per token", log="xy")
    if gap is None:
        note(axes, "not compared yet")
    elif gap.losses.size:
        for loss in gap.losses[[0, -1]]:
            ends = [float(np.exp(np.interp(-np.log(loss), -np.log(one.loss), np.log(one.C)))) for one in (fast, slow)]
            axes.annotate("", (ends[1], loss), (ends[0], loss), arrowprops={"arrowstyle": "<->", "color": GREY})
    if gap is not None:
        axes.set_title(f"{slow.name} needs {gap} x\nthe compute of {fast.name}", fontsize=8.5)
    legend(axes)
    return figure


@dataclass(frozen=True)
class Spend:
    """Compute of one budget's cells, FLOPs.

    Args:
        budget: FLOPs of one cell.
        planned: of all its cells.
        spent: by what was achieved and is of use.
        wasted: lost to restarts, failures and divergence.
    """

    budget: float
    planned: float
    spent: float
    wasted: float

    @property
    def left(self) -> float:
        """Planned and not yet spent."""
        return max(self.planned - self.spent, 0.0)


def spend_ledger(rows: Sequence[Spend], limit: float | None = None) -> Any:
    """Spent, wasted and left of each budget, and their sum against the limit of the campaign."""
    figure, (axes, total) = canvas(2, width=4.2)
    label(axes, "FLOPs of a cell", "training FLOPs of its cells")
    label(total, "", "training FLOPs of the campaign")
    if not rows:
        nothing(axes, "no cells yet")
        return figure
    ordered = sorted(rows, key=lambda one: one.budget)
    _stack(axes, [f"{one.budget:.2g}" for one in ordered], ordered)
    whole = Spend(0.0, *(sum(getattr(one, name) for one in rows) for name in ("planned", "spent", "wasted")))
    _stack(total, ["all cells"], [whole])
    total.set_xlim(-1.2, 1.2)
    if limit is not None:
        total.axhline(limit, color="black", linestyle="--", linewidth=1, label=f"limit {limit:.3g}")
    legend(axes)
    legend(total)
    return figure


def _stack(axes: Any, names: Sequence[str], rows: Sequence[Spend]) -> None:
    bottom = np.zeros(len(rows))
    for part, colour in (("spent", GREEN), ("wasted", ORANGE), ("left", "#d0d0d0")):
        heights = np.array([getattr(one, part) for one in rows])
        axes.bar(names, heights, 0.7, bottom=bottom, color=colour, label=part)
        bottom = bottom + heights
    axes.tick_params(axis="x", rotation=30 if len(names) > 5 else 0)
