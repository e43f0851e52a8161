"""The straight form that f-distill is timed against computes what ours does, and costs what it should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evaluation.benchmarks import f_distill_speed
from evaluation.benchmarks.f_distill_speed import Case, Steps

SMALL = Case(width=8, blocks=1, multipliers=(1, 2, 2), batch=3, side=16, classes=3)


@pytest.fixture(scope="module")
def steps() -> Steps:
    return Steps(SMALL)


@pytest.mark.parametrize("name", ["critic", "student"])
def test_one_loss_and_one_gradient(steps: Steps, name: str) -> None:
    found = []
    for loss_of in (steps.our_loss, steps.plain_loss):
        steps.only(name)
        loss, _kept = loss_of(name)
        parameters = list(steps.nets[name].parameters())
        found.append((loss.detach(), torch.autograd.grad(loss, parameters)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=0)
    largest = max(float(gradient.abs().max()) for gradient in found[1][1])
    for ours, plain in zip(found[0][1], found[1][1], strict=True):
        # The straight form's x - (x - g) loses digits of g.
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4 * largest)


def test_another_computation_is_refused() -> None:
    steps = Steps(SMALL)
    steps.check()
    steps.draws = lambda name: Steps.draws(steps, "another")  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="not the same computation"):
        steps.check()


def test_ours_takes_fewer_operations(steps: Steps) -> None:
    """By as much as counting the passes says, with the encoder's part of this network."""
    counted = []
    for loss_of in (steps.our_loss, steps.plain_loss):
        with FlopCounterMode(display=False) as counter:
            for name in ("critic", "student"):
                steps.only(name)
                loss_of(name)[0].backward()
        counted.append(counter.get_total_flops())
    with torch.device("meta"):
        net = steps.case.parts().build()
    whole, encoder = net.multiply_adds(), net.multiply_adds(encoder_only=True)
    saved = 2 * SMALL.batch * ((2 * whole - 2 * encoder) + whole)
    assert counted[1] - counted[0] == pytest.approx(saved, rel=0.05)


def test_kept_bytes_are_those_of_student_and_encoder(steps: Steps) -> None:
    ours, plain = (steps.kept_bytes("student", each) for each in (steps.our_loss, steps.plain_loss))
    assert 0.5 < ours / plain < 0.9
    assert steps.kept_bytes("critic", steps.our_loss) <= steps.kept_bytes("critic", steps.plain_loss) * 1.05


def test_figures() -> None:
    figures = f_distill_speed.figures(2, case=replace(SMALL, batch=1))
    assert {name: entry["goal"] for name, entry in figures.items()} == {
        "step_speedup": ">= 1.15",
        "activation_memory_ratio": "<= 0.8",
    }
    assert figures["step_speedup"]["n"] == 2
    assert all(entry["value"] > 0 for entry in figures.values())
