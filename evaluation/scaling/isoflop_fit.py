"""Power laws through the best sizes of several budgets, with intervals and warnings of what biases them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.scaling.checks import Check, check_excluded, check_runs
from evaluation.scaling.forms import Surface
from evaluation.scaling.isoflop import Valley, find_valleys, missing
from evaluation.scaling.isoflop_draws import Resampling, draw_minima
from evaluation.scaling.lines import Line, fit_line
from evaluation.scaling.points import Floats, Points, points_of
from evaluation.scaling.valley import ValleyOptions
from generative.errors import DataError

WIDEST = 8.0
"""Half-width of the sizes, as a factor, beyond which a parabola is clearly off on an additive surface."""

DRIFT = 1.5
"""Factor by which the centre of the sizes may move against the best size from budget to budget."""


@dataclass(frozen=True)
class IsoflopFit:
    """N_opt, D_opt and the lowest loss as power laws of C.

    Args:
        points: the runs.
        valleys: of all budgets, bracketed or not.
        N_opt: through the bracketed ones.
        D_opt: regressed by itself, on tokens at the minima.
        L_opt: a power law without a floor; see `saturating.fit_power` for one with it.
        draws: the three lines with float64[R] in each field.
        minima: losses at the bracketed minima, float64[R, budgets].
        noise: float64[R], log(measured / curve) of runs drawn at random.
        protocol: of the draws.
        checks: what to know before trusting it.
    """

    points: Points
    valleys: tuple[Valley, ...]
    N_opt: Line
    D_opt: Line
    L_opt: Line
    draws: tuple[Line, Line, Line]
    minima: Floats
    noise: Floats
    protocol: str
    checks: tuple[Check, ...]

    @property
    def bracketed(self) -> list[Valley]:
        """The minima that count."""
        return [one for one in self.valleys if one.bracketed]


def fit_isoflop(
    points: Points,
    options: ValleyOptions | None = None,
    resampling: Resampling | None = None,
    *,
    weigh: bool = False,
) -> IsoflopFit:
    """Find the minima and draw the lines.

    Args:
        points: runs of two or more budgets.
        options: how minima are found.
        resampling: how their uncertainty is.
        weigh: budgets count by 1 / variance of log N_opt over the draws (Porian et al. 2024).

    Raises:
        DataError: fewer than two budgets are bracketed; or Akima's minima without a noise to draw.
    """
    options, resampling = options or ValleyOptions(), resampling or Resampling()
    valleys = find_valleys(points, options)
    good = [one for one in valleys if one.bracketed]
    if len(good) < 2:
        raise DataError(
            f"{len(good)} of {len(valleys)} budgets have a bracketed minimum",
            expected="two or more, each with 4 sizes on both sides of the best one",
            remedy="; ".join(missing(valleys)) or "run more budgets",
        )
    C = np.array([one.achieved for one in good])
    drawn, noise, protocol = draw_minima(points, good, options, resampling)
    weight = None
    if weigh:
        weight = 1 / np.maximum(np.nanvar(np.log(drawn[0]), axis=0), 1e-12)
    measured = np.array([[one.N, one.D, one.loss] for one in good]).T
    N_opt, D_opt, L_opt = (fit_line(C, column, weight) for column in measured)
    lines = [fit_line(C, column, weight) for column in drawn]
    valid = np.isfinite(lines[0].slope)
    draws = tuple(Line(line.slope[valid], line.intercept[valid]) for line in lines)
    lost = f", {(~valid).sum()} draws without a line" if not valid.all() else ""
    return IsoflopFit(
        points,
        tuple(valleys),
        N_opt,
        D_opt,
        L_opt,
        (draws[0], draws[1], draws[2]),
        drawn[2][valid],
        noise[valid],
        protocol + lost,
        _checks(points, valleys, C),
    )


def _checks(points: Points, valleys: Sequence[Valley], C: Floats) -> tuple[Check, ...]:
    good = [one for one in valleys if one.bracketed]
    wide = [one for one in good if one.half_width > WIDEST * 1.01]
    centres = np.array([one.centre / one.N for one in good])
    drift = float(centres.max() / centres.min())
    told = missing(valleys)
    return (
        check_runs({"C": C}, 2, "budgets"),
        check_excluded(points.excluded),
        Check(
            "bracketing",
            not told,
            f"{len(good)} of {len(valleys)} budgets are bracketed" + "".join(f"; {t}" for t in told),
        ),
        Check(
            "width",
            not wide,
            f"sizes within {max(one.half_width for one in good):.3g} x of their centre"
            + (f"; beyond {WIDEST:g} x a parabola is biased: leave the outer sizes out (window)" if wide else ""),
        ),
        Check(
            "centring",
            drift <= DRIFT,
            f"centre of the sizes / best size moves by a factor {drift:.3g} over budgets"
            + ("" if drift <= DRIFT else "; the exponent is biased: re-centre the sizes"),
        ),
    )


def parabola_bias(
    surface: Surface, points: Points, valleys: Sequence[Valley], options: ValleyOptions, k: float = 6.0
) -> tuple[Floats, float]:
    """What parabolas at these very runs would do on an exact surface: the cross-check with approach 3.

    Returns:
        Vertex / true best size under C = k N D at each budget that is bracketed here and there, and the exponent's
        error from it (NaN where there is one budget or none).
    """
    exact = points_of(points.N, points.D, surface.loss(points.N, points.D), C=points.C, budget=points.budget)
    kept = {one.budget for one in valleys if one.bracketed}
    found = [one for one in find_valleys(exact, options) if one.budget in kept and one.bracketed]
    C = np.array([one.achieved for one in found])
    ratios = np.array([one.N for one in found]) / surface.optimum(C, k)[0]
    return ratios, fit_line(C, ratios).slope if len(found) > 1 else np.nan
