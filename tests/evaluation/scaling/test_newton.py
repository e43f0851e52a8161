"""The optimiser: derivatives, known minima, bounds, and independence of what else is in the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import nnls

from evaluation.scaling.newton import Objective, minimise
from evaluation.scaling.problem import FitOptions, prepare
from evaluation.scaling.projection import non_negative_least_squares, project
from evaluation.scaling.terms import Terms, law_terms
from tests.support.scaling import isoflop_runs


def objective(delta=math.inf, linear=False, seed=0):
    rng = np.random.default_rng(seed)
    terms = law_terms(rng.normal(0, 2, (20, 2)))
    return (
        Objective(terms, rng.normal(1.0, 0.2, 20), delta, linear),
        rng.normal(0, 0.3, (3, 5)),
        rng.uniform(0.5, 2, (3, 20)),
    )


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("delta", [math.inf, 0.3])
def test_derivatives_are_those_of_finite_differences(delta, linear):
    made, theta, weight = objective(delta, linear)
    value, gradient, hessian, _ = made.expansion(theta, weight)
    np.testing.assert_allclose(value, made.value(theta, weight))
    np.testing.assert_allclose(made.value_and_gradient(theta, weight)[1], gradient)
    step = 1e-6
    for p in range(5):
        ahead, behind = theta.copy(), theta.copy()
        ahead[:, p] += step
        behind[:, p] -= step
        slope = (made.value(ahead, weight) - made.value(behind, weight)) / (2 * step)
        np.testing.assert_allclose(slope, gradient[:, p], rtol=1e-5, atol=1e-6)
        bend = (made.expansion(ahead, weight)[1] - made.expansion(behind, weight)[1]) / (2 * step)
        np.testing.assert_allclose(bend, hessian[:, p], rtol=1e-4, atol=1e-5)


def test_mean_and_median_of_a_constant():
    terms = Terms(np.ones((5, 1, 1)), np.zeros((5, 1)))
    target = np.array([0.1, 0.2, 0.4, 1.0, 9.0])
    box = np.array([-20.0]), np.array([20.0])
    mean = minimise(Objective(terms, target, math.inf), np.zeros((1, 1)), np.ones(5), *box)
    assert mean.theta[0, 0] == pytest.approx(target.mean())
    huber = minimise(Objective(terms, target, 0.05), np.zeros((1, 1)), np.ones(5), *box)
    assert huber.theta[0, 0] == pytest.approx(0.4, abs=1e-7)
    assert huber.converged.all()


def test_descents_do_not_depend_on_their_neighbours():
    points = isoflop_runs(sigma=0.01)
    problem = prepare(np.stack([points.N, points.D], axis=1), points.loss, points.weight, FitOptions())
    starts, weight = problem.starts()[:3], np.random.default_rng(0).integers(1, 4, (3, 45)).astype(float)
    together = problem.descend(starts, weight)
    assert together.converged.all()
    for i in range(3):
        alone = problem.descend(starts[i : i + 1], weight[i : i + 1])
        np.testing.assert_allclose(alone.value[0], together.value[i], rtol=1e-12)
        np.testing.assert_allclose(alone.theta[0], together.theta[i], rtol=1e-5)


def test_a_minimum_outside_of_the_box_is_met_at_its_edge():
    terms = Terms(np.ones((2, 1, 1)), np.zeros((2, 1)))
    found = minimise(Objective(terms, np.full(2, 5.0), math.inf), np.zeros((1, 1)), np.ones(2), np.zeros(1), np.ones(1))
    assert found.theta[0, 0] == 1.0
    assert found.converged.all()


def test_least_squares_without_negative_numbers():
    rng = np.random.default_rng(1)
    columns, target = rng.normal(size=(50, 12, 3)), rng.normal(size=12)
    solution, error = non_negative_least_squares(columns, target)
    for i in range(50):
        expected, norm = nnls(columns[i], target)
        np.testing.assert_allclose(solution[i], expected, atol=1e-9)
        assert error[i] == pytest.approx(norm**2)


def test_projection_finds_the_cell_of_an_exact_surface():
    points = isoflop_runs()
    log_x = np.log(np.stack([points.N, points.D], axis=1))
    best = project(log_x - log_x.mean(0), points.loss, np.ones(len(points)))
    assert best.exponents[0] == pytest.approx([0.34, 0.28], abs=0.06)
    assert best.floor[0] == pytest.approx(1.69, abs=0.15)
    assert (np.diff(best.error) >= 0).all()


@pytest.mark.parametrize(
    ("options", "count"), [(FitOptions(), 5), (FitOptions(tied=True), 4), (FitOptions(floor=1.0), 4)]
)
def test_restrictions_map_there_and_back(options, count):
    points = isoflop_runs()
    problem = prepare(np.stack([points.N, points.D], axis=1), points.loss, points.weight, options)
    free = np.arange(1.0, count + 1)
    assert options.parameters(2) == count
    theta = problem.full(free[None])[0]
    theta[:2] -= theta[3:] * problem.centre
    np.testing.assert_allclose(problem.free(theta), free)
    assert (theta[3] == theta[4]) == options.tied
