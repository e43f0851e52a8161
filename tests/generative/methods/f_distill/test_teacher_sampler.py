"""The teacher beside the student."""

from __future__ import annotations

import pytest
import torch

from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.methods.edm.sampler import EdmSampler
from generative.methods.f_distill.sampler import StudentSampler
from generative.methods.f_distill.teacher_sampler import TeacherSampler
from generative.nets.edm_unet import UNetSize
from generative.randomness import Streams
from tests.generative.methods.f_distill.tiny import CLASSES, PARTS

IDS = torch.arange(3)


def heun(steps: int) -> EdmSamplingConfig:
    return EdmSamplingConfig(steps=steps)


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PARTS.build().eval()


def test_one_step_of_the_teacher_is_the_student_that_it_began_as() -> None:
    """Same noise, same classes: a step from sigma_max to 0 is D."""
    student = StudentSampler(network(), PARTS, (80.0,))({"sample_id": IDS}, Streams(1))
    teacher = TeacherSampler(network(), PARTS, heun(1))
    torch.testing.assert_close(teacher({"sample_id": IDS}, Streams(1)), student)


@pytest.mark.parametrize(("guidance", "calls"), [(1.0, 7), (2.0, 14)])
def test_calls_are_counted(guidance: float, calls: int) -> None:
    net, seen = network(), []
    net.register_forward_hook(lambda *_: seen.append(1))
    sampler = TeacherSampler(net, PARTS, heun(4), guidance)
    sampler({"sample_id": IDS}, Streams(0))
    assert (len(seen), sampler.calls) == (calls, calls)


def test_guidance_leads_from_no_class_towards_the_class() -> None:
    """D is linear in the weight: 2 D(class) - D(none) for a single step."""
    net, label = network(), IDS % CLASSES
    given = {"sample_id": IDS, "label": label}
    found = TeacherSampler(net, PARTS, heun(1), 2.0)(given, Streams(0))
    x, sigma = 80.0 * Streams(0).normal("z", IDS, PARTS.shape), torch.full((3,), 80.0)
    told = torch.nn.functional.one_hot(label, CLASSES).float()
    with torch.no_grad():
        wanted = 2 * net(x, sigma, told) - net(x, sigma, None)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("sampler", ["heun", "euler", "ddim", "dpm_solver_2m"])
def test_it_draws_what_the_teachers_own_run_would(sampler: str) -> None:
    """Bit for bit, with churn and all, from the same streams; the caption tells it."""
    net = network()
    told = {"churn": 9.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003, "eta": 0.5}
    settings = EdmSamplingConfig.model_validate({"sampler": sampler, "steps": 3, **told})
    size = UNetSize(PARTS.shape[1], PARTS.shape[0], CLASSES, 0)
    own = EdmSampler(net, settings, size)({"sample_id": IDS}, Streams(3))
    beside = TeacherSampler(net, PARTS, settings)
    assert torch.equal(beside({"sample_id": IDS}, Streams(3)), own)
    calm = TeacherSampler(net, PARTS, settings.model_copy(update={"churn": 0.0, "eta": 0.0}))
    added = sampler != "dpm_solver_2m"
    assert torch.equal(calm({"sample_id": IDS}, Streams(3)), own) is not added
    assert ("churn 9 from 0.05 to 50, noise 1.003" in beside.in_words) is (sampler in ("heun", "euler"))
    assert ("eta 0.5" in beside.in_words) is (sampler == "ddim")
