"""How fast solvers converge to the exact probability flow of Gaussian data."""

from __future__ import annotations

import math
from functools import partial

import pytest

from generative.methods.sgmse.bridges import BBED, SBVE
from generative.methods.sgmse.processes import OUVE
from generative.methods.sgmse.samplers.common import Span
from generative.methods.sgmse.samplers.exponential import exponential
from generative.methods.sgmse.samplers.flow import heun, ode
from generative.methods.sgmse.wrapping import score_of
from tests.support.gaussian import exact_flow, gaussian_denoiser

PROCESSES = {"ouve": OUVE(), "bbed": BBED(), "sbve": SBVE()}


def errors(sample, process, y, draws, counts, start=None, end=None):
    """Error against the exact flow for each number of steps; and the calls each item took."""
    model = gaussian_denoiser(process)
    span = Span.of(process, start, end)
    wanted = exact_flow(process, process.prior(y, draws("prior", 0), start), y, span.start, span.end)
    found = [sample(model, process, y, draws, steps=n, start=start, end=end, denoise=False) for n in counts]
    return [(each.estimate - wanted).abs().max().item() for each in found], [each.calls.tolist() for each in found]


def heun_on_denoiser(denoiser, process, *arguments, **settings):
    return heun(score_of(process, denoiser), process, *arguments, **settings)


@pytest.mark.parametrize("process", ["ouve", "bbed"])
@pytest.mark.parametrize(
    ("sample", "order", "calls_a_step"),
    [
        (partial(exponential, order=1), 1, 1),
        (partial(exponential, order=2), 2, 1),
        (partial(exponential, order=2, spacing="log_snr"), 2, 1),
        (heun_on_denoiser, 2, 2),
    ],
    ids=["first", "second", "second_log_snr", "heun"],
)
def test_orders_of_convergence(process, sample, order, calls_a_step, y, draws) -> None:
    counts = [160 // calls_a_step, 320 // calls_a_step]
    found, calls = errors(sample, PROCESSES[process], y, draws, counts, start=0.9, end=0.03)
    assert math.log2(found[0] / found[1]) == pytest.approx(order, abs=0.15), found
    assert calls == [[n * calls_a_step] * 2 for n in counts]


def test_second_order_needs_few_steps(y, draws) -> None:
    found, _ = errors(partial(exponential, order=2), OUVE(), y, draws, [10])
    first, _ = errors(partial(exponential, order=1), OUVE(), y, draws, [10])
    assert found[0] < first[0] / 4


@pytest.mark.parametrize("name", PROCESSES)
def test_adaptive_flow_is_exact_to_its_tolerance(name, y, draws) -> None:
    process = PROCESSES[name]
    start = None if name == "ouve" else 0.9  # at T bridges are pinned, and errors grow from there
    score = score_of(process, gaussian_denoiser(process))
    wanted = exact_flow(process, process.prior(y, draws("prior", 0), start), y, start or process.T, 0.03)
    calls = []
    for tolerance in (1e-4, 1e-9):
        found = ode(score, process, y, draws, rtol=tolerance, atol=tolerance, start=start, end=0.03, denoise=False)
        assert (found.estimate - wanted).abs().max().item() < 20 * tolerance
        calls.append(found.calls.max().item())
    assert calls[0] < calls[1]
