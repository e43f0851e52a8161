"""Closed forms of the laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from evaluation.scaling.forms import PowerLaw, Surface, kaplan_frontier, kaplan_joint, kaplan_steps, overtrained
from tests.support.scaling import HOFFMANN, facts

SURFACES = st.builds(
    Surface,
    E=st.floats(0.5, 3),
    A=st.floats(50, 3000),
    B=st.floats(50, 3000),
    alpha=st.floats(0.1, 0.7),
    beta=st.floats(0.1, 0.7),
)


@given(SURFACES, st.floats(15, 25))
def test_optimum_is_the_lowest_loss_of_a_budget(surface, log_C):
    C = 10**log_C
    N, D, loss = surface.optimum(C)
    found = minimize_scalar(
        lambda u: surface.loss(np.exp(u), C / 6 / np.exp(u)), (np.log(N) - 1, np.log(N) + 1.5), tol=1e-10
    )
    assert pytest.approx(C, rel=1e-9) == 6 * N * D
    assert loss == pytest.approx(found.fun, rel=1e-9)
    assert np.log(N) == pytest.approx(found.x, abs=1e-3)


@given(SURFACES)
def test_exponents_of_the_frontier(surface):
    (N0, N1), (D0, D1), (L0, L1) = surface.optimum(np.array([1e18, 1e20]))
    assert np.log(N1 / N0) / np.log(100) == pytest.approx(surface.a)
    assert np.log(D1 / D0) / np.log(100) == pytest.approx(surface.b)
    assert np.log((L1 - surface.E) / (L0 - surface.E)) / np.log(100) == pytest.approx(-surface.gamma, rel=1e-5)


def test_size_follows_beta_and_tokens_alpha():
    assert (HOFFMANN.a, HOFFMANN.b) == (pytest.approx(0.28 / 0.62), pytest.approx(0.34 / 0.62))


def test_another_cost_of_a_token_scales_the_budget():
    assert HOFFMANN.optimum(3e20, k=18.0) == HOFFMANN.optimum(1e20, k=6.0)


def test_power_law_and_its_inverse():
    law = PowerLaw(floor=2.0, x0=1e4, exponent=0.2)
    x = np.array([1e5, 1e9])
    np.testing.assert_allclose(law.inverse(law(x)), x)
    assert np.isnan(law.inverse(1.9))


def test_joint_form_of_kaplan_becomes_its_limits():
    constants = {"Nc": 6.4e13, "Dc": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    assert kaplan_joint(1e9, 1e40, **constants) == pytest.approx((6.4e13 / 1e9) ** 0.076)
    assert kaplan_joint(1e60, 1e9, **constants) == pytest.approx((1.8e13 / 1e9) ** 0.103, rel=1e-4)
    assert kaplan_steps(1e9, 1e60, Nc=6.5e13, Sc=2100, alpha_N=0.077, alpha_S=0.76) == pytest.approx(6.5e4**0.077)


def test_overtrained_form_is_a_surface_with_one_exponent():
    a, b, c, E, N, M = 150.0, -0.26, 250.0, 1.7, 4e8, 80.0
    assert overtrained(a, b, c, E).loss(N, M * N) == pytest.approx(a * N**b + c * 6 ** (b / 2) * (M * N) ** b + E)


def test_exponent_of_size_from_two_laws():
    assert kaplan_frontier(PowerLaw(0.0, 8.8e13, 0.08), 0.06) == pytest.approx(0.75)


def test_table_of_known_surfaces():
    for one in facts("synthetic_isoflop.json")["surfaces"].values():
        surface = Surface(**one["truth"])
        assert (surface.scale, surface.a, surface.b) == pytest.approx((one["G"], one["a"], one["b"]), rel=1e-12)
        for row in one["optimum"]:
            assert surface.optimum(row["C"]) == pytest.approx((row["N_opt"], row["D_opt"], row["L_opt"]), rel=1e-9)
