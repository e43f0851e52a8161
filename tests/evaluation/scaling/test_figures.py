"""Figures draw what they are given, also when it is little, and always the same bytes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

from evaluation.scaling.envelope import Curve, lower_envelope
from evaluation.scaling.gap import Frontier
from evaluation.scaling.gap import compute_gap as measured_gap
from evaluation.scaling.holdout import backtest, surface_forecast
from evaluation.scaling.isoflop import find_valleys
from evaluation.scaling.isoflop_fit import fit_isoflop
from evaluation.scaling.lines import Line
from evaluation.scaling.parametric import bootstrap_surface, fit_surface
from evaluation.scaling.saturating import fit_power
from tests.support.scaling import HOFFMANN, isoflop_runs

pytest.importorskip("matplotlib", reason="figures need matplotlib (the extra `scaling`)")

from evaluation.canvas import canvas, label, rendered
from evaluation.scaling.figures import campaign, laws, quality

RUNS = isoflop_runs(sigma=0.003)
C = np.geomspace(1e17, 1e19, 5)


def words(figure) -> str:
    """All text of the SVG; room for it is not found, which takes two drawings more."""
    figure.set_layout_engine(None)
    return " ".join(ElementTree.fromstring(rendered(figure)).itertext())


def marks(figure) -> int:
    """Points drawn in all panels."""
    return sum(
        len(made.get_offsets()) for axes in figure.axes for made in axes.collections if hasattr(made, "get_sizes")
    )


def test_numbers_of_logarithmic_axes_do_not_overlap():
    for low, high in (
        (4.4, 9.8),
        (2.1, 4.69),
        (3.02, 3.05),
        (5.1e3, 9.9e3),
        (1.2, 40),
        (1e12, 9e13),
        (1e12, 3e14),
        (1e12, 1e20),
    ):
        figure, (axes,) = canvas(width=3.2, height=3.0)
        label(axes, "x", "y", log="xy")
        axes.set(xlim=(low, high), ylim=(low, high))
        figure.draw_without_rendering()
        for axis, ends in ((axes.xaxis, "intervalx"), (axes.yaxis, "intervaly")):
            shown = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            places = [getattr(one.get_window_extent(), ends) for one in shown]
            assert len({one.get_text() for one in shown}) == len(shown) > 1
            assert all(one[1] < other[0] for one, other in pairwise(places)), (low, high)


def test_isoflop_curves_draw_every_run_and_name_what_is_not_bracketed():
    kept = ~((RUNS.budget == 1e17) & (HOFFMANN.optimum(1e17)[0] < RUNS.N))
    partial = RUNS.take(kept)
    figure = laws.isoflop_curves(partial, find_valleys(partial))
    assert marks(figure) == len(partial) + 4  # and a star for each minimum
    assert "1e+17 FLOPs (not bracketed)" in words(figure)
    assert "1e+18 FLOPs (not" not in words(figure)
    assert "size to add" in words(figure)


def test_optima_with_bands_and_without_a_fit():
    fit = fit_isoflop(RUNS)
    text = words(laws.optima(fit, fit.valleys, {"Kaplan": (Line(0.73, 1.0), Line(0.27, 1.0))}))
    assert f"C^{fit.N_opt.slope:.3f}" in text
    assert f"C^{fit.D_opt.slope:.3f}" in text
    assert "95% interval" in text
    assert "Kaplan C^0.73" in text
    assert "interval" not in words(laws.optima(None, fit.valleys))
    assert "no bracketed budget yet" in words(laws.optima(None, []))


def test_envelope_with_and_without_one():
    D = np.geomspace(1e8, 1e11, 50)
    curves = [Curve(N, 6 * N * D, D, HOFFMANN.loss(N, D), "constant") for N in np.geomspace(1e7, 1e10, 5)]
    assert "inner sizes" in words(laws.envelope(curves, lower_envelope(curves)))
    assert "no envelope" in words(laws.envelope(curves, None))


def test_reducible_loss_says_where_there_is_no_floor():
    x = np.geomspace(1e15, 1e20, 10)
    noise = np.random.default_rng(0).normal(0, 0.01, 10)
    text = words(laws.reducible(fit_power(x, (3e26 / x) ** 0.05 * np.exp(noise), draws=100)))
    assert "no floor identified" in text
    assert "no floor" not in words(laws.reducible(fit_power(x, 2 + (1e17 / x) ** 0.3, draws=50)))


def test_quality_of_a_surface():
    fit = fit_surface(RUNS)
    assert marks(quality.residuals(fit)) == 3 * len(RUNS)
    assert "frontier" in words(quality.contour(fit))
    assert marks(quality.pairs(fit, bootstrap_surface(fit, 60))) == 180


def test_predictions_name_what_they_missed():
    held = backtest(RUNS, surface_forecast(draws=60))
    assert "covered" in words(quality.predicted(held))
    off = [type(one)(one.budget, one.N, one.D, one.measured * 2, one.predicted) for one in held]
    assert "missed" in words(quality.predicted(off))
    assert "nothing held out yet" in words(quality.predicted([]))


def test_gap_measured_bounded_and_missing():
    fast = Frontier("AR", C, 3 * (C / 1e18) ** -0.1)
    slow = Frontier("MDM", C, 3 * (C / 8e18) ** -0.1)
    low = Frontier("MDM", C, np.linspace(5, 4.5, 5))
    assert "MDM needs 8 x" in words(campaign.compute_gap(slow, fast, measured_gap(slow, fast)))
    assert "lower bound" in words(campaign.compute_gap(low, fast, measured_gap(low, fast)))
    assert "not compared yet" in words(campaign.compute_gap(Frontier("MDM", C[:1], low.loss[:1]), fast, None))


def test_spend_ledger_stacks_to_what_was_planned():
    rows = [campaign.Spend(1e17, 5e17, 3e17, 1e16), campaign.Spend(1e18, 5e18, 5.5e18, 0.0)]
    figure = campaign.spend_ledger(rows, limit=6e18)
    assert "limit 6e+18" in words(figure)
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights == pytest.approx([5.8e18, 1e16, 0.0])
    assert [one.left for one in rows] == [2e17, 0.0]
    assert "no cells yet" in words(campaign.spend_ledger([]))


def test_the_same_figure_has_the_same_bytes_in_both_formats():
    valleys = find_valleys(RUNS)
    first, second = (rendered(laws.isoflop_curves(RUNS, valleys)) for _ in range(2))
    assert first == second
    assert rendered(laws.isoflop_curves(RUNS, valleys), "png").startswith(b"\x89PNG")
