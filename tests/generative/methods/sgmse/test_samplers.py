"""What samplers promise, with networks in closed form: exactness, calls, and independence of the batch."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.errors import ConfigError
from generative.methods.sgmse.bridges import BBED, SBVE
from generative.methods.sgmse.noise import StreamNoise
from generative.methods.sgmse.processes import OUVE
from generative.methods.sgmse.samplers.bridge import bridge, ode_coefficients, sde_coefficients
from generative.methods.sgmse.samplers.common import Span, time
from generative.methods.sgmse.samplers.exponential import exponential, grid, points_at, transfer
from generative.methods.sgmse.samplers.flow import heun, ode
from generative.methods.sgmse.samplers.predictor_corrector import euler_maruyama, predictor_corrector
from generative.methods.sgmse.wrapping import score_of
from generative.randomness import Streams
from tests.support.gaussian import M, S, gaussian_denoiser

PROCESSES = {"ouve": OUVE(), "bbed": BBED(), "sbve": SBVE()}


def test_denoised_ends(y, draws) -> None:
    """One mean step from t_eps to 0 after the flow; the denoiser at t_eps after the exponential integrator."""
    process, model = OUVE(), gaussian_denoiser(OUVE())
    score = score_of(process, model)
    end = time(process.t_eps).expand(2)
    for sample in (partial(heun, steps=7), ode):
        plain, found = (sample(score, process, y, draws, denoise=denoise) for denoise in (False, True))
        x = plain.estimate
        g = process.diffusion(end[0]).square().item()
        wanted = x - process.t_eps * process.theta * (y - x) + g * process.t_eps * score(x, y, end)
        torch.testing.assert_close(found.estimate, wanted)
        assert torch.equal(found.calls, plain.calls + 1)
    x = exponential(model, process, y, draws, steps=6, denoise=False).estimate
    found = exponential(model, process, y, draws, steps=7)
    torch.testing.assert_close(found.estimate, model(x, y, end))
    assert found.calls.tolist() == [7, 7]


@given(
    name=st.sampled_from(sorted(PROCESSES)),
    steps=st.integers(1, 9),
    order=st.sampled_from([1, 2]),
    stochastic=st.booleans(),
    spacing=st.sampled_from(["time", "log_snr"]),
)
@settings(max_examples=40)
def test_a_perfect_denoiser_is_reached_in_any_number_of_steps(name, steps, order, stochastic, spacing) -> None:
    generator = torch.Generator().manual_seed(steps)
    x0, y = torch.randn(2, 1, 1, 2, 3, generator=generator, dtype=torch.complex128)
    x0, y = x0[None], y[None]
    how = {"order": order, "stochastic": stochastic, "spacing": spacing}
    noise = StreamNoise(Streams(3), torch.tensor([5]), y)
    found = exponential(lambda *_: x0, PROCESSES[name], y, noise, steps=steps, **how)
    torch.testing.assert_close(found.estimate, x0)
    assert found.calls.tolist() == [steps]


def test_fresh_noise_gives_the_marginal_of_the_process(complex_noise) -> None:
    """With a perfect denoiser the state at any time is a x0 + (1 - a) y + std z, whatever the steps."""
    process, shape = BBED(), (1, 1, 100, 200)
    x0, y = torch.full(shape, 0.4 + 0.1j).to(torch.complex128), torch.zeros(shape, dtype=torch.complex128)
    noise = StreamNoise(Streams(1), torch.tensor([0]), y)
    x = exponential(
        lambda *_: x0, process, y, noise, steps=5, order=2, stochastic=True, end=0.3, denoise=False
    ).estimate
    assert x.std().item() == pytest.approx(process.std(time(0.3)).item(), rel=0.02)
    assert (x.mean() - 0.7 * (0.4 + 0.1j)).abs().item() < 0.02


@given(times=st.lists(st.floats(0.05, 0.95), min_size=2, max_size=2, unique=True))
def test_bridge_samplers_are_first_order_exponential_integrators(times) -> None:
    process, one, zero = SBVE(), torch.ones(()), torch.zeros(())
    later, t = sorted(times)
    here, there = points_at(process, torch.tensor([t, later], dtype=torch.float64))
    for kind, coefficients in ((None, ode_coefficients), (zero, sde_coefficients)):
        state, estimate = (transfer(v, target, here, there, kind).item() for v, target in ((one, zero), (zero, one)))
        found = coefficients(process, t, later)
        assert [found.state, found.estimate] == pytest.approx([state, estimate], abs=1e-5)
        assert found.state + found.estimate + found.noisy == pytest.approx(1, abs=1e-5)
    assert found.noise == pytest.approx(transfer(zero, zero, here, there, one).item(), abs=1e-3)


def test_published_eps_at_the_first_step_of_the_bridge() -> None:
    """Weights of a step should add up to 1; the first of the released code is off, for any eps."""
    process = SBVE()
    first = ode_coefficients(process, 1.0, 0.8)
    s, bar = process.sigma(time(0.8)).item(), process.sigma_bar(time(0.8)).item()
    excess = s * bar * (1 - 1 / process.sigma_end) / process.sigma_end
    assert first.state + first.estimate + first.noisy - 1 == pytest.approx(excess, rel=2e-3)
    later = ode_coefficients(process, 0.8, 0.6)
    assert later.state + later.estimate + later.noisy == pytest.approx(1, abs=1e-7)


SAMPLERS = {
    "pc": (partial(predictor_corrector, steps=4), True, 8),
    "pc_langevin": (partial(predictor_corrector, steps=4, corrector="langevin", corrector_steps=2), True, 12),
    "pc_from_the_middle": (partial(predictor_corrector, steps=3, start=0.5, corrector="none"), True, 3),
    "euler_maruyama": (partial(euler_maruyama, steps=5), True, 5),
    "heun": (partial(heun, steps=3), True, 7),
    "ode": (partial(ode, rtol=1e-6, atol=1e-6), True, None),
    "exponential": (partial(exponential, steps=5), False, 5),
    "exponential_sde": (partial(exponential, steps=5, stochastic=True), False, 5),
}


class Asked:
    """A model that counts the rows it is called with."""

    def __init__(self, model) -> None:
        self.model, self.rows = model, 0

    def __call__(self, x, y, t):
        assert len(x) == len(y) == len(t)
        self.rows += len(x)
        return self.model(x, y, t)


@pytest.mark.parametrize("name", SAMPLERS)
def test_results_do_not_depend_on_the_batch_and_calls_are_true(name, complex_noise) -> None:
    sample, by_score, calls = SAMPLERS[name]
    process = OUVE()
    # Items of very different levels, so that adaptive steps differ between them.
    y = complex_noise(3, 1, 4, 6) * torch.tensor([0.01, 1.0, 30.0])[:, None, None, None]
    denoiser = gaussian_denoiser(process)
    ids, streams = torch.tensor([7, 100, 8]), Streams(11)

    def run(rows):
        model = Asked(score_of(process, denoiser) if by_score else denoiser)
        found = sample(model, process, y[rows], StreamNoise(streams, ids[rows], y[rows]))
        assert found.calls.sum().item() == model.rows
        return found

    whole = run([0, 1, 2])
    for row in range(3):
        alone = run([row])
        torch.testing.assert_close(whole.estimate[row : row + 1], alone.estimate, rtol=1e-12, atol=1e-12)
        assert whole.calls[row] == alone.calls[0]
    mixed = run([2, 0])
    torch.testing.assert_close(mixed.estimate, whole.estimate[[2, 0]], rtol=1e-12, atol=1e-12)
    if calls is not None:
        assert whole.calls.tolist() == [calls] * 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_padding_changes_nothing(name, complex_noise) -> None:
    sample, by_score, _ = SAMPLERS[name]
    process, y = OUVE(), complex_noise(2, 1, 4, 6)
    padded = torch.cat([y, torch.full((2, 1, 4, 5), 9.0)], -1)
    model = gaussian_denoiser(process)
    model = score_of(process, model) if by_score else model
    results = []
    for noisy in (y, padded):
        frames = {"frames": torch.tensor([6, 6])} if name in ("ode", "pc_langevin") else {}
        noise = StreamNoise(Streams(4), torch.tensor([1, 2]), noisy)
        results.append(sample(model, process, noisy, noise, **frames))
    torch.testing.assert_close(results[0].estimate, results[1].estimate[..., :6], rtol=1e-12, atol=1e-12)
    assert torch.equal(results[0].calls, results[1].calls)


def test_predictor_corrector_meets_the_distribution_of_the_data() -> None:
    """Many steps of the reverse process end in N(M, S^2) around y."""
    process, y = OUVE(), torch.zeros(1, 1, 60, 100, dtype=torch.complex128)
    noise = StreamNoise(Streams(2), torch.tensor([0]), y)
    score = score_of(process, gaussian_denoiser(process))
    for how in ({}, {"step_rule": "uniform", "corrector": "none"}, {"corrector": "langevin", "snr": 0.1}):
        x = predictor_corrector(score, process, y, noise, steps=100, **how).estimate
        assert x.mean().real.item() == pytest.approx(M, abs=0.05)
        assert x.std().item() == pytest.approx(S, abs=0.03)


def test_grids() -> None:
    process = OUVE()
    span = Span.of(process, 0.8, 0.05)
    equal = [each.log_snr for each in grid(process, span, 6, "log_snr")]
    gaps = [b - a for a, b in itertools.pairwise(equal)]
    assert gaps == pytest.approx([gaps[0]] * 5, rel=1e-9)
    ends = points_at(process, torch.tensor([0.8, 0.05], dtype=torch.float64))
    assert [equal[0], equal[-1]] == [each.log_snr for each in ends]
    assert [each.t for each in grid(process, span, 4, "time")] == pytest.approx([0.8, 0.55, 0.3, 0.05])


def test_bridge_times_that_the_network_is_told(y, draws) -> None:
    seen: list[float] = []

    def model(x, y, t):
        seen.append(t[0].item())
        return y

    bridge(model, SBVE(), y, draws, steps=4, network_time="previous")
    assert seen == pytest.approx([1.0, 0.750025, 0.50005, 0.250075])
    seen.clear()
    bridge(model, SBVE(), y, draws, steps=2, least_network_time=0.03)
    assert seen == pytest.approx([0.50005, 0.03])
    seen.clear()
    assert torch.equal(bridge(model, SBVE(), y, draws, steps=1).calls, torch.ones(2, dtype=torch.int64))


def test_impossible_runs(y, draws) -> None:
    score = lambda *_: y  # noqa: E731
    for wrong, message in (
        ({"steps": 0}, "steps=0"),
        ({"start": 1.5}, "t=1.5"),
        ({"end": 0.0}, "t=0"),
        ({"snr": 0.0}, "snr=0"),
        ({"corrector_steps": 0}, "corrector_steps=0"),
    ):
        with pytest.raises(ConfigError, match=message):
            predictor_corrector(score, OUVE(), y, draws, **wrong)
    with pytest.raises(ConfigError, match="order=3"):
        exponential(score, OUVE(), y, draws, order=3)
    with pytest.raises(ConfigError, match="least_network_time=2"):
        bridge(score, SBVE(), y, draws, least_network_time=2.0)
