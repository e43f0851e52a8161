"""How good a fit is: residuals, the surface with its frontier, bootstrap pairs, and predictions of unseen runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.canvas import BLUE, GREY, ORANGE, canvas, label, legend, note, nothing
from evaluation.scaling.holdout import HeldOut, coverage, mean_width
from evaluation.scaling.parametric import SurfaceDraws, SurfaceFit


def residuals(fit: SurfaceFit) -> Any:
    """log L of the law less the measured one, over N, D and C."""
    figure, panels = canvas(3, width=3.4, height=3.0)
    columns = (("parameters N", fit.points.N), ("tokens D", fit.points.D), ("training FLOPs C", fit.points.C))
    left = fit.solution.residuals()
    for axes, (name, values) in zip(panels, columns, strict=True):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.scatter(values, 100 * left, s=14, color=BLUE, alpha=0.7)
        label(axes, name, "predicted / measured loss - 1, %", log="x")
    if any(not one.ok for one in fit.checks if one.name == "residuals"):
        note(panels[0], "structure is left")
    return figure


def contour(fit: SurfaceFit, k: float = 6.0) -> Any:
    """Lines of equal loss over N and D, the runs, and the frontier of C = k N D."""
    figure, (axes,) = canvas(width=5.2, height=4.0)
    N, D = (np.geomspace(values.min() / 2, values.max() * 2, 80) for values in (fit.points.N, fit.points.D))
    losses = fit.surface.loss(N[None], D[:, None])
    levels = np.quantile(losses, np.linspace(0.05, 0.95, 10))
    lines = axes.contour(N, D, losses, levels=levels, colors=GREY, linewidths=0.7)
    axes.clabel(lines, fmt="%.3g", fontsize=7)
    C = k * np.geomspace(N[0] * D[0], N[-1] * D[-1], 60)
    best_N, best_D, _ = fit.surface.optimum(C, k)
    shown = (best_N > N[0]) & (best_N < N[-1]) & (best_D > D[0]) & (best_D < D[-1])
    axes.plot(best_N[shown], best_D[shown], color=ORANGE, linewidth=1.5, label="frontier")
    axes.scatter(fit.points.N, fit.points.D, s=10, color=BLUE, label="runs")
    label(axes, "parameters N", "tokens D", "loss, nats per token", log="xy")
    legend(axes)
    return figure


def pairs(fit: SurfaceFit, draws: SurfaceDraws) -> Any:
    """Bootstrap draws: A and B follow their exponents, which is why their intervals are wide and that of a is not."""
    figure, panels = canvas(3, width=3.2, height=3.0)
    law, drawn = fit.surface, draws.surface
    columns = (
        ("alpha", "log A", drawn.alpha, np.log(drawn.A), law.alpha, np.log(law.A)),
        ("beta", "log B", drawn.beta, np.log(drawn.B), law.beta, np.log(law.B)),
        ("a = beta / (alpha + beta)", "E, nats per token", drawn.a, drawn.E, law.a, law.E),
    )
    for axes, (x_name, y_name, x, y, best_x, best_y) in zip(panels, columns, strict=True):
        axes.scatter(x, y, s=4, color=BLUE, alpha=0.3, linewidths=0)
        axes.plot([best_x], [best_y], marker="+", color=ORANGE, markersize=10, markeredgewidth=2)
        label(axes, x_name, y_name)
    return figure


def predicted(held_out: Sequence[HeldOut]) -> Any:
    """Predicted over measured losses of runs that the fit has not seen, with intervals; orange where they miss."""
    figure, (axes,) = canvas(width=4.4, height=4.0)
    label(axes, "measured loss, nats per token", "predicted loss, nats per token")
    if not held_out:
        nothing(axes, "nothing held out yet")
        return figure
    measured = np.array([one.measured for one in held_out])
    values = np.array([one.predicted.estimate.value for one in held_out])
    low, high = (np.array([getattr(one.predicted, end) for one in held_out]) for end in ("low", "high"))
    covered = np.array([one.covered for one in held_out])
    ends = [min(measured.min(), low.min()), max(measured.max(), high.max())]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    for rows, colour, name in ((covered, BLUE, "covered"), (~covered, ORANGE, "missed")):
        if rows.any():
            bars = np.abs(np.stack([values - low, high - values]))[:, rows]
            axes.errorbar(
                measured[rows], values[rows], bars, fmt="o", markersize=4, color=colour, elinewidth=0.8, label=name
            )
    told = f"{coverage(held_out).value:.0%} covered, mean width {mean_width(held_out).value:.3g} nats"
    axes.set_title(told)
    legend(axes)
    return figure
