"""Everything that can be fitted to the runs of one family, and why the rest cannot: for campaigns in any state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from evaluation.scaling.best_loss import MINIMA, SURFACE, BestLoss, best_loss_ahead, trial
from evaluation.scaling.checks import Check, check_bias, check_seeds
from evaluation.scaling.envelope import Curve, Envelope, lower_envelope
from evaluation.scaling.gap import Frontier, Gap, compute_gap, frontier_of
from evaluation.scaling.holdout import HeldOut, backtest, leave_one_budget_out, predicted_from, surface_forecast
from evaluation.scaling.isoflop import Valley, find_valleys, missing
from evaluation.scaling.isoflop_draws import Resampling
from evaluation.scaling.isoflop_fit import IsoflopFit, fit_isoflop, parabola_bias
from evaluation.scaling.parametric import SurfaceDraws, SurfaceFit, bootstrap_surface, fit_surface, floor_check
from evaluation.scaling.points import Points, gather, seed_noise
from evaluation.scaling.predict import Prediction, predict_isoflop, predict_surface
from evaluation.scaling.problem import FitOptions
from evaluation.scaling.saturating import PowerFit, fit_power
from evaluation.scaling.valley import ValleyOptions
from generative.errors import DataError, GenerativeError

DRAWS = 1000
HELD_OUT_DRAWS = 400

T = TypeVar("T")


@dataclass(frozen=True)
class FamilyLaws:
    """The laws of one family.

    Args:
        name: of the family.
        points: usable runs; None where there are none.
        valleys: of all budgets, bracketed or not.
        isoflop: approach 2.
        surface: approach 3, with its draws.
        power: loss at the bracketed minima over C, with a floor.
        held_out: runs of each budget predicted from the others.
        ahead: runs of the largest budget predicted from all smaller ones.
        envelope: approach 1.
        curves: training curves.
        problems: (what, why) of what could not be fitted.
        crossed: checks of one fit by another, or by repeated runs.
        best: the best loss of the largest budget, predicted from all smaller ones.
        tried: by law, how well it predicts the best loss of the largest budget: see `best_loss.trial`.
        back: runs of all budgets above a tenth of the largest, predicted from those below.
    """

    name: str
    points: Points | None
    valleys: tuple[Valley, ...]
    isoflop: IsoflopFit | None
    surface: SurfaceFit | None
    draws: SurfaceDraws | None
    power: PowerFit | None
    held_out: tuple[HeldOut, ...]
    ahead: tuple[HeldOut, ...]
    envelope: Envelope | None
    curves: tuple[Curve, ...]
    problems: tuple[tuple[str, str], ...]
    crossed: tuple[Check, ...] = ()
    back: tuple[HeldOut, ...] = ()
    best: BestLoss | None = None
    tried: Mapping[str, float] = field(default_factory=dict)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Of all fits, which their names begin with."""
        fits = {"minima": self.isoflop, "surface": self.surface, "L(C)": self.power, "envelope": self.envelope}
        told = [(name, check) for name, fit in fits.items() if fit is not None for check in fit.checks]
        return (*(replace(check, name=f"{name}: {check.name}") for name, check in told), *self.crossed)

    @property
    def to_do(self) -> list[str]:
        """What is missing for minima at all budgets."""
        return missing(self.valleys)

    @property
    def k(self) -> float:
        """C / (N D): 6 where the convention of FLOPs is that of N."""
        assert self.points is not None
        return self.points.k

    def predict(self, C: float, level: float = 0.95) -> tuple[Prediction, str]:
        """By the law that predicts the best loss of the largest budget better from the others; and which it is.

        Raises:
            DataError: neither could be fitted.
            ConfigError: C is no number of FLOPs.
        """
        told = "; ".join(f"{law} {error:+.1%}" for law, error in self.tried.items())
        chosen = min(self.tried, key=lambda law: abs(self.tried[law]), default=SURFACE)
        told = f" (best loss of the largest budget from the others: {told})" if told else ""
        if chosen == MINIMA and self.isoflop is not None:
            return predict_isoflop(self.isoflop, C, level=level), MINIMA + told
        if self.surface is not None and self.draws is not None:
            return predict_surface(self.surface, self.draws, C, level=level, k=self.k), SURFACE + told
        if self.isoflop is not None:
            return predict_isoflop(self.isoflop, C, law=self.power, level=level), MINIMA
        raise DataError(
            f"{self.name}: no law could be fitted ({'; '.join(why for _, why in self.problems) or 'no runs'})",
            "a surface (10 runs or more) or two budgets with a bracketed minimum",
            "; ".join(self.to_do) or "run more cells of this family",
        )


def fit_family(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    curves: Sequence[Curve] = (),
    options: FitOptions | None = None,
    draws: int = DRAWS,
) -> FamilyLaws:
    """Fit what the runs allow. Never raises for what is missing, but tells it.

    Args:
        name: of the family.
        rows: as `points.gather` reads them.
        curves: training curves, for the envelope.
        options: of the surface.
        draws: of the bootstraps (of those that leave a budget out, at most 400).
    """
    problems: list[tuple[str, str]] = []

    def tried(what: str, fit: Callable[[], T]) -> T | None:
        try:
            return fit()
        except GenerativeError as error:
            problems.append((what, error.problem))
            return None

    points = tried("runs", lambda: gather(rows))
    envelope = tried("envelope", lambda: lower_envelope(curves)) if curves else None
    if points is None:
        return FamilyLaws(name, None, (), None, None, None, None, (), (), envelope, tuple(curves), tuple(problems))
    known: Points = points
    isoflop = tried("IsoFLOP minima", lambda: fit_isoflop(known, resampling=Resampling(draws=draws)))
    surface = tried("surface L(N, D)", lambda: fit_surface(known, options))
    drawn = tried("bootstrap", lambda: bootstrap_surface(surface, draws)) if surface else None
    power = tried("loss over C", lambda: _power(isoflop, draws)) if isoflop else None
    forecast = surface_forecast(options, min(HELD_OUT_DRAWS, draws))
    held_out = tried("leave one budget out", lambda: leave_one_budget_out(known, forecast))
    ahead = tried("largest budget ahead", lambda: _ahead(known, options, draws))
    back = tried("back-test", lambda: backtest(known, forecast))
    best = tried("best loss of the largest budget", lambda: best_loss_ahead(known, options, draws))
    return FamilyLaws(
        name,
        points,
        tuple(find_valleys(points)),
        isoflop,
        surface if drawn else None,
        drawn,
        power,
        tuple(held_out or ()),
        tuple(ahead or ()),
        envelope,
        tuple(curves),
        tuple(problems),
        _crossed(surface, drawn, isoflop),
        tuple(back or ()),
        best,
        trial(known, options),
    )


def _crossed(surface: SurfaceFit | None, drawn: SurfaceDraws | None, isoflop: IsoflopFit | None) -> tuple[Check, ...]:
    """The surface against repeated runs, its floor against none, and the parabolas against the surface."""
    if surface is None or drawn is None:
        return ()
    residuals, parameters = surface.solution.residuals(), len(surface.solution.free)
    found = [check_seeds(seed_noise(surface.points), residuals, parameters), floor_check(surface, drawn)]
    if isoflop is not None:
        k = surface.points.k
        ratios, error = parabola_bias(surface.surface, isoflop.points, isoflop.valleys, ValleyOptions(), k)
        found += [check_bias(ratios, error)] if len(ratios) > 1 else []
    return tuple(found)


def _power(isoflop: IsoflopFit, draws: int) -> PowerFit:
    good = isoflop.bracketed
    return fit_power(np.array([one.achieved for one in good]), np.array([one.loss for one in good]), draws=draws)


def _ahead(points: Points, options: FitOptions | None, draws: int) -> list[HeldOut]:
    largest = points.budget == points.budget.max()
    if len(points.budgets()) < 3:
        raise DataError("fewer than three budgets: there is none to predict", "three budgets", "run larger ones")
    return predicted_from(points.take(~largest), points.take(largest), surface_forecast(options, draws))


def gap_of_families(slow: FamilyLaws, fast: FamilyLaws) -> tuple[Frontier, Frontier, Gap]:
    """Best losses of both, and the compute between them; by bracketed minima where there are two or more.

    Raises:
        DataError: too few budgets, or losses that do not fall.
    """
    ends = [_frontier(one) for one in (slow, fast)]
    return ends[0], ends[1], compute_gap(ends[0], ends[1])


def _frontier(laws: FamilyLaws) -> Frontier:
    if laws.isoflop is not None:
        return frontier_of(laws.name, laws.isoflop)
    points = laws.points
    if points is None:
        raise DataError(f"{laws.name}: no runs to compare", "finished cells of both families", "run the campaign")
    budgets = points.budgets()
    best = [float(points.loss[points.budget == budget].min()) for budget in budgets]
    return Frontier(f"{laws.name} (best runs, not bracketed)", budgets, np.array(best))
