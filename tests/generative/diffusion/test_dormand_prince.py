from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.diffusion.dormand_prince import ERROR, FIFTH, NODES, STAGES, Tolerance, integrate
from generative.errors import ConfigError, GenerativeError


def test_the_tableau_is_consistent() -> None:
    for node, weights in zip(NODES, STAGES, strict=True):
        assert sum(weights) == pytest.approx(node)
    nodes = np.array(NODES)
    for power in range(5):  # order conditions of quadrature up to order 5
        assert np.dot(FIFTH, nodes**power) == pytest.approx(1 / (power + 1))
    assert sum(ERROR) == pytest.approx(0)


def oscillator(t, x):
    """Non-linear and complex, with a slope that depends on time."""
    return 1j * (1 + t) * x - 0.3 * x * np.abs(x) ** 2 + np.sin(3 * t)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize(("start", "end"), [(0.0, 4.0), (1.0, 0.6)])
def test_one_row_takes_the_steps_of_scipy(tolerance, start, end) -> None:
    from scipy.integrate import solve_ivp

    x = np.linspace(-1, 2, 6) + 0.4j
    wanted = solve_ivp(oscillator, (start, end), x, method="RK45", rtol=tolerance, atol=tolerance)
    calls = 0

    def slope(x, t, rows):
        nonlocal calls
        calls += 1
        return torch.from_numpy(oscillator(t.item(), x.numpy()))

    found = integrate(slope, torch.from_numpy(x)[None], start, end, Tolerance(tolerance, tolerance))
    np.testing.assert_allclose(found[0].numpy(), wanted.y[:, -1], rtol=1e-9)
    assert calls == wanted.nfev


def test_rows_take_steps_of_their_own() -> None:
    rates = torch.tensor([0.1, 30.0, 3.0], dtype=torch.float64)

    def run(rows_asked):
        calls = torch.zeros(3, dtype=torch.int64)

        def slope(x, t, rows):
            calls[rows_asked[rows]] += 1
            return -rates[rows_asked[rows], None] * x

        x = torch.ones(len(rows_asked), 2, dtype=torch.float64)
        return integrate(slope, x, 0.0, 1.0, Tolerance(1e-7, 1e-7)), calls

    together, calls = run(torch.arange(3))
    torch.testing.assert_close(together, (-rates).exp()[:, None].expand(3, 2), rtol=0, atol=1e-6)
    assert calls[0] < calls[2] < calls[1]
    for row in range(3):
        alone, own = run(torch.tensor([row]))
        assert torch.equal(alone[0], together[row])
        assert own[row] == calls[row]


def test_places_that_do_not_count_do_not_set_the_step() -> None:
    def run(width, counted):
        calls = 0

        def slope(x, t, rows):
            nonlocal calls
            calls += 1
            return -torch.tensor([1.0, 50.0], dtype=torch.float64)[:width] * x

        x = torch.ones(1, width, dtype=torch.float64)
        return integrate(slope, x, 0.0, 1.0, Tolerance(1e-6, 1e-6), counted), calls

    alone, calls = run(1, None)
    found, masked = run(2, torch.tensor([[True, False]]))
    assert torch.equal(found[:, :1], alone)
    assert masked == calls < run(2, None)[1]


def test_slopes_that_are_not_finite_are_told() -> None:
    with pytest.raises(GenerativeError, match="the step at t=0"):
        integrate(lambda x, t, rows: x * torch.nan, torch.ones(1, 1), 0.0, 1.0, Tolerance(1e-6, 1e-6))
    with pytest.raises(ConfigError, match="rtol=0"):
        Tolerance(0.0, 1e-5)
