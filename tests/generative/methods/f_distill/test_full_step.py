"""A whole step of the released code: the student's losses and gradients, and the critic's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from generative.method import Alone, Context, Loss
from generative.methods.f_distill.backbone import JointCritic
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.critic import Noised, Trial, discriminator_loss, fake_score_loss, joint_loss
from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap
from generative.methods.f_distill.method import FDistill
from generative.nets.edm_config import SongConfig
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_unet import UNetSize
from generative.nets.feature_heads import UnetHeads
from generative.randomness import Streams
from tests.generative.methods.f_distill.golden import GOLDEN

SHAPE, CLASSES, COUNT = (3, 8, 8), 10, 4
CONFIG = FDistillConfig.model_validate(
    {
        "preset": "fastgen_imagenet64",
        "divergence": "js",
        "gan_weight": 0.01,
        "levels": [0],
        "r1": {"weight": 1.0},
        "time": {"real": "shared"},
    }
)
EVERYONE = torch.ones(COUNT, dtype=torch.bool)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    found = load_file(GOLDEN / "full_step.safetensors")
    return {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in found.items()}


def weights(golden: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"w.{name}."
    return {key.removeprefix(start): tensor for key, tensor in golden.items() if key.startswith(start)}


def heads(golden: dict[str, Tensor]) -> UnetHeads:
    found = UnetHeads([16], [8])
    found.load_state_dict(weights(golden, "discriminator"))
    return found


def method_of(build: Any = nn.Identity) -> FDistill:
    return FDistill(CONFIG, DenoiserParts(build, SHAPE, CLASSES, [FeatureMap(16, 8)]))


def context_of(method: FDistill) -> Context:
    return Context(0, Streams(0), COUNT, method.state(), Alone())


def told(found: Loss) -> dict[str, float]:
    return {key: float(mean.total.sum() / mean.count.sum()) for key, mean in found.metrics.items()}


def scalar(golden: dict[str, Tensor], key: str) -> Any:
    return pytest.approx(float(golden[key]), rel=1e-4)


def check_student(method: FDistill, found: Loss, golden: dict[str, Tensor]) -> None:
    assert float(found.value.detach()) / COUNT == scalar(golden, "student.total_loss")
    assert told(found)["matching"] == scalar(golden, "student.f_distill_loss")
    assert told(found)["gan"] == scalar(golden, "student.gan_loss_gen")
    assert found.new_state is not None
    means = found.new_state["ratio_means"].float()
    torch.testing.assert_close(means, golden["student.bins_after"], rtol=1e-4, atol=0)


def test_student_from_the_networks_answers(golden: dict[str, Tensor]) -> None:
    """Everything but the networks themselves, whose answers and features are the golden ones."""
    method, discriminator = method_of(), heads(golden)
    torch.testing.assert_close(discriminator([golden["mid.feat0"]]), golden["mid.logits"], rtol=1e-4, atol=1e-5)
    answers = {
        "fake": lambda *_: golden["mid.fake_x0"],
        "teacher": lambda *_, **__: (golden["mid.teacher_x0"], [golden["mid.feat0"]]),
        "discriminator": discriminator,
    }
    x = golden["student.gen"].clone().requires_grad_()
    drawn = Noised(x, golden["in.eps"], golden["in.t"], golden["mid.x_t"])
    found = method.matching(answers, drawn, golden["in.cond"], EVERYONE, context_of(method))
    check_student(method, found, golden)
    h = method.weights(golden["mid.logits"], golden["in.t"], EVERYONE, method.state(), Alone()).h
    for key, value in (("min", h.min()), ("avg", h.mean()), ("max", h.max())):
        assert float(value) == scalar(golden, f"student.{key}_h")


def network(golden: dict[str, Tensor], name: str) -> nn.Module:
    found = EdmNetwork(SongConfig(width=16, multipliers=(1,), attention=(16,), dropout=0.0), UNetSize(8, 3, CLASSES))
    stored = weights(golden, name)
    found.load_state_dict({key: stored[key] for key in found.state_dict()})
    return found


def test_student_with_its_gradient(golden: dict[str, Tensor]) -> None:
    method = method_of()
    nets: dict[str, Any] = {name: network(golden, name).requires_grad_(False) for name in ("teacher", "fake_score")}
    nets |= {"fake": nets["fake_score"], "discriminator": heads(golden).requires_grad_(False)}
    student = network(golden, "net")
    x = student(golden["in.input_student"], torch.full((COUNT,), 80.0), golden["in.cond"])
    torch.testing.assert_close(x, golden["student.gen"], rtol=1e-4, atol=1e-5)
    x_t = (x.double() + golden["in.t"][:, None, None, None] * golden["in.eps"].double()).float()
    torch.testing.assert_close(x_t, golden["mid.x_t"], rtol=1e-4, atol=1e-5)
    drawn = Noised(x, golden["in.eps"], golden["in.t"], x_t)
    found = method.matching(nets, drawn, golden["in.cond"], EVERYONE, context_of(method))
    check_student(method, found, golden)
    (found.value / COUNT).backward()
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    for key, wanted in golden.items():
        if key.startswith("student.grad."):
            torch.testing.assert_close(gradients[key.removeprefix("student.grad.")], wanted, rtol=1e-3, atol=1e-6)
    norm = torch.nn.utils.get_total_norm(gradients.values())
    assert float(norm) == pytest.approx(float(golden["student.grad_global_norm"]), rel=1e-3)


def test_critic_with_its_gradients(golden: dict[str, Tensor]) -> None:
    nets: dict[str, Any] = {"teacher": network(golden, "teacher"), "fake": network(golden, "fake_score")}
    nets["discriminator"] = heads(golden)
    t, eps, labels = golden["in.t"], golden["in.eps"], golden["in.cond"]
    fake = Noised(golden["student.gen"], eps, t, golden["mid.x_t"])
    real_t = (golden["in.real"].double() + t[:, None, None, None] * eps.double()).float()
    real = Noised(golden["in.real"], eps, t, real_t)
    method = method_of()
    score = fake_score_loss(method.views, nets, fake, labels, EVERYONE)
    trial = Trial(fake, real, labels, EVERYONE, golden["in.r1_noise"], method.weights, context_of(method))
    judged = discriminator_loss(method.views, nets, trial)
    assert float(score.value.detach()) / COUNT == scalar(golden, "critic.fake_score_loss")
    assert told(judged)["gan"] == scalar(golden, "critic.gan_loss_disc")
    assert told(judged)["r1"] == scalar(golden, "critic.gan_loss_ar1")
    total = (score.value + judged.value) / COUNT
    assert float(total.detach()) == scalar(golden, "critic.total_loss")
    total.backward()
    for name, key in (("fake", "fake"), ("discriminator", "disc")):
        norm = torch.nn.utils.get_total_norm([p.grad for p in nets[name].parameters() if p.grad is not None])
        assert float(norm) == pytest.approx(float(golden[f"critic.grad_norm_{key}"]), rel=1e-3)
    assert all(parameter.grad is None for parameter in nets["teacher"].parameters())
    together = FDistill(CONFIG.model_copy(update={"critic": "joint", "joint_weight": 1.0}), method.parts)
    critic = JointCritic(network(golden, "fake_score"), heads(golden), [0], coupled=False)
    both = joint_loss(together.views, {"teacher": nets["teacher"], "critic": critic}, trial)
    assert float(both.value.detach()) / COUNT == scalar(golden, "critic.total_loss")
    (both.value / COUNT).backward()
    for part, key in ((critic.fake, "fake"), (critic.heads, "disc")):
        norm = torch.nn.utils.get_total_norm([p.grad for p in part.parameters() if p.grad is not None])
        assert float(norm) == pytest.approx(float(golden[f"critic.grad_norm_{key}"]), rel=1e-3)
