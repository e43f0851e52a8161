"""One variable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.scaling.forms import PowerLaw
from evaluation.scaling.problem import FitOptions
from evaluation.scaling.saturating import fit_power
from generative.errors import DataError

X = np.geomspace(1e15, 1e20, 12)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 0.4), st.floats(0.5, 3))
def test_exact_laws_come_back_in_any_unit(exponent, floor):
    law = PowerLaw(floor, 1e17, exponent)
    for unit in (1.0, 8.64e19):
        found = fit_power(X / unit, law(X), draws=20).law
        assert found.exponent == pytest.approx(exponent, rel=2e-3)
        assert found.floor == pytest.approx(floor, abs=5e-3)
        assert found.x0 * unit == pytest.approx(1e17, rel=0.05)


def test_without_a_floor_it_is_a_line_in_log_log():
    found = fit_power(X, PowerLaw(0.0, 3e26, 0.05)(X), FitOptions(floor=0.0), draws=20)
    assert found.law.exponent == pytest.approx(0.05)
    assert found.law.floor < 1e-100
    assert all(one.name != "floor" for one in found.checks)


def test_a_floor_that_the_data_do_not_show_is_told():
    noise = np.random.default_rng(0).normal(0, 0.01, len(X))
    fit = fit_power(X, PowerLaw(0.0, 3e26, 0.05)(X) * np.exp(noise), draws=200)
    assert "no floor identified" in next(one for one in fit.checks if one.name == "floor").text
    seen = fit_power(X, PowerLaw(2.0, 1e17, 0.3)(X) * np.exp(noise / 10), draws=200)
    assert all(one.ok for one in seen.checks if one.name == "floor")
    assert np.quantile(seen.draws.floor, 0.025) < 2.0 < np.quantile(seen.draws.floor, 0.975)


def test_too_few_points_are_refused():
    with pytest.raises(DataError, match="2 runs cannot determine 3"):
        fit_power(X[:2], np.array([3.0, 2.9]))
    with pytest.raises(DataError, match="same variable"):
        fit_power(np.ones(5), np.linspace(3, 2, 5))
