"""Students of one step and of several: what they are called with, what they learn from, and what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from generative.method import Context
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.sampler import Steps, StudentSampler, training_samples
from generative.randomness import Streams
from tests.generative.methods.f_distill.cases import batch_of, check_gradients, loss_of, method_of, nets_of
from tests.generative.methods.f_distill.golden import GOLDEN
from tests.generative.methods.f_distill.tiny import PARTS, SHAPE

LEVELS = [17.5, 2.5]
SEVERAL = {"steps": {"levels": LEVELS}}
REAL = {"steps": {"levels": LEVELS, "input": "noised_data"}}


class Spy:
    """A student that gives half of what it sees, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.factor = torch.tensor(0.5, requires_grad=True)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        self.seen.append((x.detach(), sigma))
        return self.factor * x


def drawn(settings: dict[str, Any], step: int = 3, count: int = 5) -> tuple[Tensor, Spy, Context]:
    config = FDistillConfig.model_validate(settings)
    spy, context = Spy(), Context(step, Streams(0, step), count)
    return training_samples(config, PARTS, spy, batch_of(count), context), spy, context


def test_one_step_is_one_call_from_pure_noise() -> None:
    x, spy, context = drawn({"student_sigma": 8.0})
    z = 8.0 * context.streams.normal("z", torch.arange(5), SHAPE)
    assert len(spy.seen) == 1
    assert torch.equal(spy.seen[0][0], z)
    assert torch.equal(spy.seen[0][1], torch.full((5,), 8.0))
    assert torch.equal(x, 0.5 * z)


def test_the_chain_of_several_steps_by_hand() -> None:
    """Every input is the sample before it, noised to the level of the call; all updates of a seed reach each step."""
    reached = set()
    for step in range(12):
        x, spy, context = drawn(SEVERAL, step)
        levels, ids = [80.0, *LEVELS], torch.arange(5)
        wanted = 80.0 * context.streams.normal("z", ids, SHAPE)
        for k, (seen, sigma) in enumerate(spy.seen):
            assert torch.equal(sigma, torch.full((5,), levels[k]))
            torch.testing.assert_close(seen, wanted, rtol=1e-6, atol=1e-6)
            if k + 1 < len(levels):
                noise = context.streams.normal(f"z.{k + 1}", ids, SHAPE)
                wanted = 0.5 * seen + levels[k + 1] * noise
        torch.testing.assert_close(x, 0.5 * spy.seen[-1][0])
        # Only the last call has a gradient: d x / d factor is its input.
        x.sum().backward()
        assert spy.factor.grad is not None
        torch.testing.assert_close(spy.factor.grad, spy.seen[-1][0].sum())
        reached.add(len(spy.seen))
    assert reached == {1, 2, 3}


def test_noised_real_samples() -> None:
    """One call, at a level of each sample's own; the first level is pure noise."""
    which, batch = set(), batch_of(64)
    _, spy, context = drawn(REAL, count=64)
    ((seen, sigma),) = spy.seen
    noise = context.streams.normal("z", torch.arange(64), SHAPE)
    for row, level in enumerate(sigma.tolist()):
        real = 0.0 if level == 80.0 else batch["sample"][row]
        torch.testing.assert_close(seen[row], real + level * noise[row], rtol=1e-5, atol=1e-5)
        which.add(level)
    assert which == {80.0, *LEVELS}


@pytest.mark.parametrize("levels", [[], LEVELS])
def test_samples_do_not_depend_on_the_batch(levels: list[float]) -> None:
    method = method_of(steps={"levels": levels})
    sampler = method.sampler(nets_of(method))
    assert isinstance(sampler, StudentSampler)
    assert sampler.calls == 1 + len(levels)
    counted: list[int] = []
    sampler.student.register_forward_hook(lambda module, inputs, output: counted.append(len(output)))
    every = sampler({"sample_id": torch.arange(5)}, Streams(0))
    assert counted == [5] * sampler.calls
    torch.testing.assert_close(sampler({"sample_id": torch.tensor([3])}, Streams(0))[0], every[3])


def test_what_it_learns_from_is_what_it_draws() -> None:
    """The input of the last step in training is that of the sampler, from the same streams."""
    method = method_of(**SEVERAL)
    student = nets_of(method)["student"]
    steps, ids = Steps.of(method.config, PARTS), torch.arange(4)
    labels = torch.eye(3)[[0, 1, 2, 0]]
    with torch.no_grad():
        x = steps.until(student, 2, Streams(0), ids, labels)
        told = {"sample_id": ids, "label": labels.argmax(1)}
        torch.testing.assert_close(
            method.sampler({"student": student})(told, Streams(0)), student(x, torch.full((4,), 2.5), labels)
        )


@pytest.mark.parametrize("name", ["fake_score", "discriminator", "student"])
@pytest.mark.parametrize("settings", [SEVERAL, REAL])
def test_only_the_trained_network_gets_gradients(name: str, settings: dict[str, Any]) -> None:
    check_gradients(method_of(**settings), name)


def test_flops_count_the_calls_on_the_way() -> None:
    """On average over the step that is drawn; noised real samples cost what one step does."""
    one, several = method_of(), method_of(**SEVERAL)
    assert method_of(**REAL).flops(batch_of(4)) == one.flops(batch_of(4))
    nets, batch, counted = nets_of(several), batch_of(4), 0.0
    for update in several.updates():
        for reached in range(1, 4):
            with pytest.MonkeyPatch.context() as patch, FlopCounterMode(display=False) as counter:
                patch.setattr(Streams, "shared_uniform", lambda *_, k=reached, **__: torch.tensor((k - 0.5) / 3))
                loss_of(several, nets, update.name, batch).value.backward()
            counted += counter.get_total_flops() * update.repeats / 3
    assert several.flops(batch) == pytest.approx(counted, rel=0.1)


def test_levels_of_the_released_code() -> None:
    """Its lists for 2 and 4 steps are accepted as they are; the first level is where the student starts."""
    with np.load(GOLDEN / "edm_schedule.npz") as golden:
        for count in (1, 2, 4, 8):
            start, *further = golden[f"t_list_{count}"][:-1].tolist()
            config = FDistillConfig.model_validate({"student_sigma": start, "steps": {"levels": further}})
            assert len(Steps.of(config, PARTS).levels) == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": {"levels": [2.0, 3.0]}}, r"steps.levels=\[2.0, 3.0\]"),
        ({"steps": {"levels": [2.0, 2.0]}}, "levels that fall"),
        ({"steps": {"levels": [80.0, 2.0]}}, "levels below the noise that the student starts from"),
        ({"steps": {"levels": [0.0]}}, "greater than 0"),
        ({"steps": {"input": "real"}}, "'simulated' or 'noised_data'"),
    ],
)
def test_levels_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FDistillConfig.model_validate(values)
