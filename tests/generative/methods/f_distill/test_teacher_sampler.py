"""The teacher beside the student."""

from __future__ import annotations

import pytest
import torch

from generative.methods.f_distill.sampler import StudentSampler
from generative.methods.f_distill.teacher_sampler import TeacherSampler
from generative.methods.f_distill.times import TimeGrid
from generative.randomness import Streams
from tests.generative.methods.f_distill.tiny import CLASSES, PARTS

IDS = torch.arange(3)
GRID = TimeGrid(0.002, 80.0)


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PARTS.build().eval()


def test_one_step_of_the_teacher_is_the_student_that_it_began_as() -> None:
    """Same noise, same classes: a step from sigma_max to 0 is D."""
    student = StudentSampler(network(), PARTS, (80.0,))({"sample_id": IDS}, Streams(1))
    teacher = TeacherSampler(network(), PARTS, GRID, 1)
    torch.testing.assert_close(teacher({"sample_id": IDS}, Streams(1)), student)


@pytest.mark.parametrize(("guidance", "calls"), [(1.0, 7), (2.0, 14)])
def test_calls_are_counted(guidance: float, calls: int) -> None:
    net, seen = network(), []
    net.register_forward_hook(lambda *_: seen.append(1))
    sampler = TeacherSampler(net, PARTS, GRID, 4, guidance)
    sampler({"sample_id": IDS}, Streams(0))
    assert (len(seen), sampler.calls) == (calls, calls)


def test_guidance_leads_from_no_class_towards_the_class() -> None:
    """D is linear in the weight: 2 D(class) - D(none) for a single step."""
    net, label = network(), IDS % CLASSES
    given = {"sample_id": IDS, "label": label}
    found = TeacherSampler(net, PARTS, GRID, 1, 2.0)(given, Streams(0))
    x, sigma = 80.0 * Streams(0).normal("z", IDS, PARTS.shape), torch.full((3,), 80.0)
    told = torch.nn.functional.one_hot(label, CLASSES).float()
    with torch.no_grad():
        wanted = 2 * net(x, sigma, told) - net(x, sigma, None)
    torch.testing.assert_close(found, wanted)
