"""IsoFLOP curves, the sizes and lengths that follow from them, the envelope, and the reducible loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.canvas import (
    BLUE,
    GREY,
    ORANGE,
    band,
    budget_colours,
    canvas,
    label,
    legend,
    note,
    nothing,
)
from evaluation.scaling.envelope import Curve, Envelope
from evaluation.scaling.isoflop import Valley
from evaluation.scaling.isoflop_fit import IsoflopFit
from evaluation.scaling.lines import Line
from evaluation.scaling.points import Points
from evaluation.scaling.saturating import PowerFit


def isoflop_curves(points: Points, valleys: Sequence[Valley]) -> Any:
    """Loss over size, a colour a budget: parabola and star where the minimum is bracketed, hollow marks where not."""
    figure, (axes,) = canvas(width=7.4, height=3.8)
    colours = budget_colours(points.budgets())
    for valley in valleys:
        rows, colour = points.budget == valley.budget, colours[valley.budget]
        face = colour if valley.bracketed else "none"
        name = f"{valley.budget:.3g} FLOPs" + ("" if valley.bracketed else " (not bracketed)")
        axes.scatter(points.N[rows], points.loss[rows], s=16, facecolors=face, edgecolors=colour, label=name)
        if valley.bracketed:
            if valley.curve is not None:
                sizes = np.geomspace(points.N[valley.rows].min(), points.N[valley.rows].max(), 60)
                axes.plot(sizes, valley.curve(sizes)[0], color=colour, linewidth=1)
            axes.scatter([valley.N], [valley.loss], marker="*", s=70, color=colour, edgecolors="black", linewidths=0.5)
        elif valley.proposal is not None:
            axes.axvline(valley.proposal, color=colour, linestyle=":", linewidth=1)
    label(axes, "parameters N", "loss, nats per token", log="x")
    if any(not valley.bracketed for valley in valleys):
        note(axes, "dotted: size to add")
    legend(axes, outside=True)
    return figure


def optima(
    fit: IsoflopFit | None, valleys: Sequence[Valley], others: Mapping[str, tuple[Line, Line]] | None = None
) -> Any:
    """Best size and length over compute with 80 % and 95 % bands; `others` are named (N_opt, D_opt) to compare with."""
    figure, both = canvas(2)
    good = [one for one in valleys if one.bracketed]
    for panel, (axes, name) in enumerate(zip(both, ("parameters N_opt", "tokens D_opt"), strict=True)):
        label(axes, "training FLOPs C", name, log="xy")
        if not good:
            nothing(axes, "no bracketed budget yet")
            continue
        C = np.array([one.achieved for one in good])
        grid = np.geomspace(C.min() / 1.5, C.max() * 4, 60)
        if fit is not None:
            line, drawn = ((fit.N_opt, fit.draws[0]), (fit.D_opt, fit.draws[1]))[panel]
            band(axes, grid, drawn_lines(drawn, grid), BLUE)
            axes.plot(grid, line(grid), color=BLUE, linewidth=1.2, label=f"C^{line.slope:.3f}")
        axes.scatter(C, [(one.N, one.D)[panel] for one in good], s=20, color=BLUE, zorder=3)
        for other, lines in (others or {}).items():
            axes.plot(
                grid,
                lines[panel](grid),
                color=GREY,
                linestyle="--",
                linewidth=1,
                label=f"{other} C^{lines[panel].slope:.2f}",
            )
        legend(axes)
    return figure


def drawn_lines(line: Line, x: Any) -> Any:
    """float64[R, m] of a line with float64[R] in its fields."""
    return np.exp(line.intercept[:, None] + line.slope[:, None] * np.log(x))


def envelope(curves: Sequence[Curve], found: Envelope | None) -> Any:
    """Training curves over compute, a colour a size, and their envelope; thick where a size in between is best."""
    figure, (axes,) = canvas(width=5.6, height=3.8)
    colours = budget_colours([*{one.N for one in curves}])
    for one in curves:
        axes.plot(one.C, one.loss, color=colours[one.N], linewidth=0.7, alpha=0.7)
    if found is None:
        note(axes, "no envelope: see the checks")
    else:
        axes.plot(found.C, found.loss, color="black", linewidth=0.8, linestyle="--", label="envelope")
        inner = np.where(found.inner, found.loss, np.nan)
        axes.plot(found.C, inner, color=ORANGE, linewidth=1.8, label="envelope, inner sizes")
    label(axes, "training FLOPs C", "loss, nats per token", f"{len(curves)} curves, dark: small models", log="x")
    legend(axes)
    return figure


def reducible(fit: PowerFit, name: str = "training FLOPs C") -> Any:
    """Loss less the fitted floor, in log-log: a line where the law holds. The band holds the floor's uncertainty."""
    figure, (axes,) = canvas(width=5.0)
    grid = np.geomspace(fit.x.min() / 1.5, fit.x.max() * 4, 60)
    draws = fit.draws
    drawn = draws.floor[:, None] - fit.law.floor + (draws.x0[:, None] / grid) ** draws.exponent[:, None]
    band(axes, grid, np.maximum(drawn, 1e-12), BLUE)
    axes.plot(grid, fit.law(grid) - fit.law.floor, color=BLUE, linewidth=1.2, label=f"exponent {fit.law.exponent:.3f}")
    above = fit.loss > fit.law.floor
    axes.scatter(fit.x[above], fit.loss[above] - fit.law.floor, s=18, color=BLUE, zorder=3)
    label(axes, name, "loss - floor, nats per token", f"floor {fit.law.floor:.4g}", log="xy")
    if not all(one.ok for one in fit.checks if one.name == "floor"):
        note(axes, "no floor identified")
    legend(axes)
    return figure
