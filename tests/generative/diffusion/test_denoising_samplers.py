"""Samplers of denoisers: released numbers, closed forms of Gaussian data, orders of convergence."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from generative.diffusion.denoising_samplers import Churn, ddim, dpm_solver_2m, dpm_solver_2s, euler, heun, start
from generative.diffusion.noise_levels import karras_grid, with_zero
from generative.errors import ConfigError
from tests.support.edm import GOLDEN, golden_network

M, S = 0.7, 0.3
SAMPLERS = {"heun": heun, "euler": euler, "ddim": ddim, "dpm_solver_2s": dpm_solver_2s, "dpm_solver_2m": dpm_solver_2m}
ORDERS = {"heun": 2, "euler": 1, "ddim": 1, "dpm_solver_2s": 2, "dpm_solver_2m": 2}


def denoiser(x, sigma):
    """Expectation of y ~ N(M, S^2) given y + sigma n."""
    gain = (S**2 / (S**2 + sigma**2)).view(-1, *[1] * (x.ndim - 1))
    return M + gain * (x - M)


def exact(x, sigma, target):
    """The probability flow: deviations from the mean scale with the width of the marginal."""
    return M + (x - M) * math.sqrt((S**2 + target**2) / (S**2 + sigma**2))


def begin(count=6, sigma=80.0):
    return sigma * torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_released_grids():
    golden = np.load(GOLDEN / "edm_schedule.npz")
    found = karras_grid(1000).flip(0).numpy()
    np.testing.assert_allclose(found, golden["karras1000_f64"], rtol=1e-9)
    np.testing.assert_allclose(found, golden["karras1000_dmd2_f32"], rtol=1e-5)


@given(st.integers(1, 60), st.floats(1e-3, 0.1), st.floats(1.0, 200.0), st.floats(1.0, 12.0))
def test_grids_fall_from_end_to_end(steps, low, high, rho):
    grid = with_zero(karras_grid(steps, low, high, rho))
    assert len(grid) == steps + 1
    assert grid.dtype == torch.float64
    assert bool((grid.diff() < 0).all())
    assert grid[0] == high
    assert grid[-1] == 0
    assert steps == 1 or grid[-2] == low


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 3, "sigma_min": 0.0}, {"steps": 3, "sigma_max": 0.001}])
def test_grids_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match="sampling"):
        karras_grid(**wrong)
    with pytest.raises(ConfigError):
        euler(denoiser, begin(), torch.tensor([1.0, 1.0, 0.5]))


@pytest.mark.parametrize("name", ["song_ddpmpp", "dhariwal"])
def test_the_released_sampler(name):
    golden, net = load_file(GOLDEN / f"net_{name}.safetensors"), golden_network(name)
    labels = golden["in.labels"][:2]
    grid = with_zero(karras_grid(5))
    with torch.no_grad():
        found = heun(lambda x, s: net(x.float(), s, labels), start(golden["in.sampler_z"], grid), grid)
    torch.testing.assert_close(found.float(), golden["out.sampler_heun5"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_order_of_convergence(name):
    errors = []
    for steps in (40, 80, 160):
        grid = karras_grid(steps + 1, 0.02, 20.0)
        x = begin(sigma=20.0)
        errors.append(float((SAMPLERS[name](denoiser, x, grid) - exact(x, 20.0, 0.02)).abs().max()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[name], abs=0.25)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_step_to_zero_is_the_denoiser(name):
    x, grid = begin(sigma=2.0), torch.tensor([2.0, 0.0], dtype=torch.float64)
    wanted = denoiser(x, torch.full((6,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(SAMPLERS[name](denoiser, x, grid), wanted, rtol=1e-12, atol=1e-12)


def counted(calls):
    def denoise(x, sigma):
        calls.append(sigma)
        return denoiser(x, sigma)

    return denoise


@pytest.mark.parametrize(
    ("name", "calls"), [("heun", 35), ("euler", 18), ("ddim", 18), ("dpm_solver_2s", 35), ("dpm_solver_2m", 18)]
)
def test_network_calls(name, calls):
    seen: list[torch.Tensor] = []
    SAMPLERS[name](counted(seen), begin(), with_zero(karras_grid(18)))
    assert len(seen) == calls


def test_ddim_without_noise_is_eulers_method():
    grid = with_zero(karras_grid(12))
    torch.testing.assert_close(ddim(denoiser, begin(), grid), euler(denoiser, begin(), grid), rtol=1e-12, atol=1e-12)


def normal(count):
    return lambda step: torch.randn(count, 2, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.mark.parametrize("way", ["churn", "eta"])
def test_stochastic_samplers_keep_the_distribution(way):
    """Steps are small, so that mean and width are those of the data."""
    count = 20_000
    grid = with_zero(karras_grid(60 if way == "churn" else 500, 0.002, 20.0))
    if way == "churn":
        found = heun(denoiser, begin(count, 20.0), grid, Churn(20.0, 0.01, 10.0), normal(count))
    else:
        found = ddim(denoiser, begin(count, 20.0), grid, 1.0, normal(count))
    assert found.mean().item() == pytest.approx(M, abs=0.01)
    assert found.std().item() == pytest.approx(S, rel=0.03)
    # What one starts from is forgotten.
    start, end = begin(count, 20.0).flatten(), found.flatten()
    assert abs(torch.corrcoef(torch.stack([start, end]))[0, 1]) < 0.5


def test_one_ancestral_step_is_the_posterior():
    """For a point mass at M, x_t given x_s and y has mean M + t^2 / s^2 (x_s - M) and variance t^2 (1 - t^2 / s^2)."""
    x, noise, s, t = begin(sigma=3.0), normal(6)(0), 3.0, 1.2
    found = ddim(
        lambda x, sigma: torch.full_like(x, M), x, torch.tensor([s, t], dtype=torch.float64), 1.0, lambda i: noise
    )
    wanted = M + t**2 / s**2 * (x - M) + t * math.sqrt(1 - t**2 / s**2) * noise
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_churn_is_limited_and_bounded():
    churn = Churn(40.0, 0.05, 50.0, 1.003)
    assert churn.factor(80.0, 256) == churn.factor(0.01, 256) == 0
    assert churn.factor(1.0, 256) == 40 / 256
    assert churn.factor(1.0, 18) == math.sqrt(2) - 1
    with pytest.raises(ValueError, match="noise"):
        heun(denoiser, begin(), with_zero(karras_grid(3)), Churn(1.0))


def test_a_churned_step_by_hand():
    """Algorithm 2, one step, for D = M: everything is linear."""
    x, noise = begin(sigma=2.0), normal(6)(0)
    grid, churn = torch.tensor([2.0, 1.0], dtype=torch.float64), Churn(0.3, 0.0, 10.0, 1.1)
    raised = 2.0 * 1.3
    lifted = x + math.sqrt(raised**2 - 4.0) * 1.1 * noise
    wanted = M + (lifted - M) / raised
    found = heun(lambda x, sigma: torch.full_like(x, M), x, grid, churn, lambda step: noise)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
