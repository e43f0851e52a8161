from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.errors import ConfigError
from generative.methods.sgmse.bridges import BBED, SBVE
from generative.methods.sgmse.processes import OUVE, draw_times

PROCESSES = {"ouve": OUVE(), "ouve_48k": OUVE(2.0, 0.1, 1.0), "bbed": BBED(), "sbve": SBVE()}


@pytest.mark.parametrize("tag", ["ouve_16k", "ouve_48k", "bbed"])
def test_published_laws(tag, arrays, near) -> None:
    golden = arrays("sde")
    kind = BBED if tag == "bbed" else OUVE
    first, second, third = golden[f"{tag}_params"].tolist()
    process = BBED(k=first, theta=second, T=third) if kind is BBED else OUVE(first, second, third)
    t = golden["bbed_t" if tag == "bbed" else "t"]
    near(process.mean(golden["x0"], golden["y"], t), golden[f"{tag}_mean"], 1e-5)
    near(process.drift(golden["x"], golden["y"], t), golden[f"{tag}_drift"], 1e-5)
    near(process.std(t), golden[f"{tag}_std"].double(), 1e-5)
    near(process.diffusion(t), golden[f"{tag}_diffusion"].double().flatten(), 1e-5)


def test_published_bridge(arrays, near) -> None:
    golden = arrays("sde")
    process, t = SBVE(*golden["sbve_params"].tolist()), golden["t"]
    near(process.mean(golden["x0"], golden["y"], t), golden["sbve_mean"], 1e-5)
    near(process.diffusion(t), golden["sbve_diffusion"].double(), 1e-5)
    near(process.sigma(t), golden["sbve_sigma_t"].double(), 1e-5)
    near(process.sigma_bar(t), golden["sbve_sigma_bar"].double(), 1e-5)
    near(process.std(t), golden["sbve_std"].double(), 1e-5)
    assert process.sigma_end == pytest.approx(golden["sbve_sigma_T"].item(), rel=1e-6)


def test_figures_of_the_papers_settings() -> None:
    std = OUVE().std(torch.tensor([1.0, 0.03], dtype=torch.float64))
    assert std.tolist() == pytest.approx([0.388983, 0.018830], abs=1e-6)
    std = OUVE(2.0, 0.1, 1.0).std(torch.tensor([1.0, 0.03], dtype=torch.float64))
    assert std.tolist() == pytest.approx([0.731482, 0.037390], abs=1e-6)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_marginals_solve_the_equations_of_their_own_moments(process) -> None:
    """a' = -pull a and (std^2)' = g^2 - 2 pull std^2, by exact derivatives in float64."""
    t = torch.linspace(1e-6, 0.999 * process.T, 200, dtype=torch.float64, requires_grad=True)
    a, variance = process.signal(t), process.std(t).square()
    slope_a = torch.autograd.grad(a.sum(), t)[0]
    slope = torch.autograd.grad(variance.sum(), t)[0]
    pull, g = process.pull(t.detach()), process.diffusion(t.detach())
    torch.testing.assert_close(slope_a, -pull * a.detach(), rtol=1e-7, atol=1e-12)
    # The eps of SBVE is in its published std and sigma_bar in different ways.
    torch.testing.assert_close(slope, g.square() - 2 * pull * variance.detach(), rtol=1e-7, atol=5e-8)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_start_of_time_keeps_all_digits(process) -> None:
    t = torch.tensor([1e-9], dtype=torch.float64)
    # To first order std^2 = g(0)^2 t.
    torch.testing.assert_close(process.std(t), process.diffusion(t) * t.sqrt(), rtol=2e-7, atol=0)
    zero = torch.zeros(1, dtype=torch.float64)
    assert process.std(zero).item() == 0.0
    assert process.signal(zero).item() == pytest.approx(1.0, abs=1e-15)


@given(k=st.floats(1.01, 10.0), theta=st.floats(0.01, 3.0), t=st.floats(1e-5, 0.9999))
def test_bbed_is_the_closed_form_with_exponential_integrals(k, theta, t) -> None:
    from scipy.special import expi

    log_k = math.log(k)
    integrals = expi(-2 * (1 - t) * log_k) - expi(-2 * log_k)
    bracket = k ** (2 * t) - 1 + t + 2 * k**2 * log_k * (1 - t) * integrals
    found = BBED(k=k, theta=theta, T=0.99995, t_eps=1e-5).std(torch.tensor(t, dtype=torch.float64)).item() ** 2
    # The closed form as it stands cancels: its own rounding is about k^2 in units of 1e-15.
    assert found == pytest.approx((1 - t) * theta * bracket, rel=1e-9, abs=1e-13 * k**2 * theta)


def test_bridges_end_in_y() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert BBED().std(one).item() == 0.0
    assert BBED().signal(one).item() == 0.0
    bridge = SBVE()
    assert bridge.sigma_bar(one).item() == pytest.approx(math.sqrt(bridge.eps), rel=1e-12)
    assert bridge.signal(one).item() < 1e-7


def test_priors(complex_noise) -> None:
    y, noise = complex_noise(2, 1, 3, 4), complex_noise(2, 1, 3, 4, seed=1)
    half = torch.tensor(0.5, dtype=torch.float64)
    for process in PROCESSES.values():
        assert torch.equal(process.prior(y, noise, 0.5), y + process.std(half) * noise)
    assert torch.equal(SBVE().prior(y, noise), y)
    assert torch.equal(OUVE().prior(y, noise), y + OUVE().std(2 * half) * noise)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_states_keep_their_type_and_items_their_own_time(process, complex_noise) -> None:
    x0, y = complex_noise(3, 1, 2, 5, dtype=torch.complex64), complex_noise(3, 1, 2, 5, seed=1, dtype=torch.complex64)
    t = torch.tensor([0.1, 0.5, 0.9])
    mean = process.mean(x0, y, t)
    assert mean.dtype == torch.complex64
    assert process.drift(x0, y, t).dtype == torch.complex64
    for row in range(3):
        assert torch.equal(mean[row], process.mean(x0[row : row + 1], y[row : row + 1], t[row : row + 1])[0])


def test_training_times_stay_within_the_process() -> None:
    uniform = torch.tensor([0.0, 0.25, 1 - 2**-24])
    for process in PROCESSES.values():
        times = draw_times(process, uniform)
        assert times.tolist()[0] == pytest.approx(process.t_eps)
        assert times[1].item() == pytest.approx(process.t_eps + 0.25 * (process.T - process.t_eps))
        assert process.T - 1e-6 < times[2].item() <= process.T


def test_impossible_settings() -> None:
    for kind, wrong in (
        (OUVE, {"sigma_min": 0.6}),
        (OUVE, {"theta": -1.0}),
        (OUVE, {"t_eps": 0.0}),
        (BBED, {"T": 1.0}),
        (BBED, {"k": 1.0}),
        (SBVE, {"c": 0.0}),
        (SBVE, {"t_eps": 2.0}),
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            kind(**wrong)
