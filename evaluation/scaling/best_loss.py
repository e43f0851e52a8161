"""The best loss of a budget that no fit has seen, by the law that told the last budget before it best.

A surface L(N, D) uses all runs and bends where sizes off the optimum do not follow it; the line through the minima of
each budget (the published one for masked diffusion) uses little, and no size far off. Which of them is to be trusted
is decided among budgets that are seen: each predicts the largest of them from the smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evaluation.estimate import Ratio
from evaluation.scaling.holdout import Foretold
from evaluation.scaling.isoflop import find_valleys
from evaluation.scaling.isoflop_draws import Resampling
from evaluation.scaling.isoflop_fit import fit_isoflop
from evaluation.scaling.parametric import bootstrap_surface, fit_surface
from evaluation.scaling.points import Points
from evaluation.scaling.predict import Prediction, predict_isoflop, predict_surface
from evaluation.scaling.problem import FitOptions
from generative.errors import DataError, GenerativeError

SURFACE, MINIMA = "surface L(N, D)", "line through IsoFLOP minima"

FEW_DRAWS = 20
"""Where only the value of a prediction is looked at."""


@dataclass(frozen=True)
class BestLoss(Foretold):
    """The best loss of the largest budget, predicted from all smaller ones.

    Args:
        budget: FLOPs.
        measured: at the vertex of its parabola where it is bracketed, else of the best run; nats per token.
        predicted: with the interval in which a measured loss is expected.
        by: name of the law.
        tried: by law, predicted / measured - 1 of the largest budget among those that were seen.
    """

    budget: float
    measured: float
    predicted: Ratio
    by: str
    tried: Mapping[str, float]


def best_loss_ahead(points: Points, options: FitOptions | None = None, draws: int = 1000) -> BestLoss:
    """Predict the best loss of the largest budget from all smaller ones.

    Raises:
        DataError: fewer than three budgets, or no law that can be fitted to those below the largest.
    """
    largest = _largest(points)
    seen = points.take(points.budget < largest)
    tried = trial(seen, options)
    told: Prediction | None = None
    for by in sorted((SURFACE, MINIMA), key=lambda law: abs(tried.get(law, float("inf")))):
        try:
            told = _laws(options, draws)[by](seen, largest)
            break
        except DataError:
            continue
    if told is None:
        raise DataError(
            "no law can be fitted to the budgets below the largest",
            "a surface (10 runs or more) or two budgets with a bracketed minimum",
            "run more cells at the smaller budgets",
        )
    return BestLoss(largest, best_loss(points, largest), told.run, by, tried)


def trial(points: Points, options: FitOptions | None = None) -> dict[str, float]:
    """Predicted / measured - 1 of the best loss of the largest budget, by each law that fits those below; may be {}."""
    found: dict[str, float] = {}
    if len(points.budgets()) < 3:
        return found
    largest = _largest(points)
    for name, law in _laws(options, FEW_DRAWS).items():
        try:
            told = law(points.take(points.budget < largest), largest)
        except GenerativeError:
            continue
        found[name] = told.loss.estimate.value / best_loss(points, largest) - 1
    return found


def best_loss(points: Points, budget: float) -> float:
    """Of one budget: at the vertex where it is bracketed, else of its best run."""
    own = points.take(points.budget == budget)
    (valley,) = find_valleys(own)
    return valley.loss if valley.bracketed else float(own.loss.min())


def _largest(points: Points) -> float:
    if len(points.budgets()) < 3:
        raise DataError("fewer than three budgets: there is none to predict", "three budgets", "run larger ones")
    return float(points.budget.max())


def _laws(options: FitOptions | None, draws: int) -> dict[str, Callable[[Points, float], Prediction]]:
    def surface(points: Points, C: float) -> Prediction:
        fit = fit_surface(points, options)
        return predict_surface(fit, bootstrap_surface(fit, draws), C, k=points.k)

    def minima(points: Points, C: float) -> Prediction:
        return predict_isoflop(fit_isoflop(points, resampling=Resampling(draws=draws)), C)

    return {SURFACE: surface, MINIMA: minima}
