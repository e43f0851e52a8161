"""Whose features the discriminator sees: who is trained by what, and that passes are shared for free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generative.data.loader import Loader
from generative.errors import ConfigError
from generative.method import Collectives, Loss
from generative.methods.f_distill.backbone import JointCritic
from generative.methods.f_distill.divergences import divergence_of
from generative.methods.f_distill.losses import guided
from generative.training.backend import Backend
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.strategies import check_strategy
from generative.training.trainer import Trainer
from tests.generative.methods.f_distill.cases import batch_of, counted_flops, loss_of, method_of, nets_of
from tests.generative.methods.f_distill.images import Images
from tests.support.ranks import together

COUPLED, FROZEN, JOINT = {"backbone": "fake"}, {"backbone": "fake_frozen"}, {"critic": "joint"}
EVERY_JOINT = [COUPLED, JOINT, FROZEN | JOINT]
PLAIN: dict[str, Any] = {}


def same_weights(nets: dict[str, nn.Module], both: dict[str, nn.Module]) -> None:
    """Networks with a coupled critic take the weights of those without."""
    critic = both["critic"]
    assert isinstance(critic, JointCritic)
    for name in ("student", "teacher"):
        both[name].load_state_dict(nets[name].state_dict())
    critic.fake.load_state_dict(nets["fake"].state_dict())
    critic.heads.load_state_dict(nets["discriminator"].state_dict())


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("settings", [{}, {"r1": {"weight": 2.0}}, {"guidance": 2.0}])
@pytest.mark.parametrize("backbone", [*EVERY_JOINT, FROZEN])
def test_only_the_trained_network_gets_gradients(backbone: dict[str, Any], settings: dict[str, Any]) -> None:
    method = method_of(**backbone, **settings)
    names = {"critic": "critic", "student": "student"}
    if backbone == FROZEN:
        names = {"fake_score": "fake", "discriminator": "discriminator", "student": "student"}
    assert {update.name: update.trains for update in method.updates()} == names
    for name, trained in names.items():
        nets = nets_of(method)
        loss_of(method, nets, name, batch_of(6)).value.backward()
        for other, net in nets.items():
            given = [parameter.grad is not None for parameter in net.parameters()]
            assert all(given) if other == trained else not any(given), (name, other)


@pytest.mark.parametrize(("joint", "backbone"), [(COUPLED, FROZEN), (JOINT, PLAIN), (FROZEN | JOINT, FROZEN)])
def test_the_joint_loss_is_the_sum_of_both(joint: dict[str, Any], backbone: dict[str, Any]) -> None:
    """With the streams of an update of the same name, so that all draw the same samples, times and noise."""
    further: dict[str, Any] = {"r1": {"weight": 2.0}}
    apart, coupled = method_of(**backbone, **further), method_of(**joint, **further, joint_weight=0.3)
    nets, both = nets_of(apart), nets_of(coupled)
    same_weights(nets, both)

    def renamed(method: Any, trains: str) -> Any:
        one = next(u for u in method.updates() if u.trains == trains)
        return replace_updates(method, replace(one, name="critic"))

    joint = loss_of(coupled, both, "critic", batch_of(6))
    score = loss_of(renamed(apart, "fake"), nets, "critic", batch_of(6))
    judged = loss_of(renamed(apart, "discriminator"), nets, "critic", batch_of(6))
    assert joint.value.item() == pytest.approx(score.value.item() + 0.3 * judged.value.item(), rel=1e-5)
    for name, mean in judged.metrics.items():
        torch.testing.assert_close(joint.metrics[name].total, mean.total)
    joint.value.backward()
    judged.value.backward()
    score.value.backward()
    for name, gradient in gradients(nets["discriminator"]).items():
        wanted = gradients(both["critic"])[f"heads.{name}"]
        torch.testing.assert_close(0.3 * gradient, wanted, rtol=1e-4, atol=1e-6)
    if joint != COUPLED:
        for name, gradient in gradients(nets["fake"]).items():
            torch.testing.assert_close(gradient, gradients(both["critic"])[f"fake.{name}"], rtol=1e-4, atol=1e-5)


def replace_updates(method: Any, update: Any) -> Any:
    class One:
        def __getattr__(self, name: str) -> Any:
            return getattr(method, name)

        def updates(self) -> list[Any]:
            return [update]

    return One()


def test_the_discriminators_loss_trains_the_encoder_of_the_fake_score() -> None:
    """As central differences of the joint loss have it; the decoder knows the fake score's loss alone."""
    method = method_of(**COUPLED, joint_weight=5.0, fake_weight="none")
    nets = nets_of(method)

    def value() -> Tensor:
        return loss_of(method, nets, "critic", batch_of(6)).value

    weight = nets["critic"].fake.down.bias
    value().backward()
    found, slopes = float(weight.grad.sum()), []
    for step in (4e-3, -4e-3):
        with torch.no_grad():
            weight += step
            slopes.append(value().item())
            weight -= step
    assert found == pytest.approx((slopes[0] - slopes[1]) / 8e-3, rel=0.02)
    lighter = method_of(**COUPLED, joint_weight=1e-6, fake_weight="none")
    both = []
    for each in (method, lighter):
        nets["critic"].zero_grad()
        loss_of(each, nets, "critic", batch_of(6)).value.backward()
        both.append(gradients(nets["critic"]))
    torch.testing.assert_close(both[0]["fake.last.weight"], both[1]["fake.last.weight"])
    assert (both[0]["fake.down.weight"] - both[1]["fake.down.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize(("joint", "backbone"), [(COUPLED, FROZEN), (JOINT, PLAIN), (FROZEN | JOINT, FROZEN)])
@pytest.mark.parametrize("divergence", ["js", "rkl"])
def test_one_pass_for_estimate_and_features(divergence: str, joint: dict[str, Any], backbone: dict[str, Any]) -> None:
    """The student's loss is the same whether fake score and heads are one network or two."""
    apart, coupled = method_of(**backbone, divergence=divergence), method_of(**joint, divergence=divergence)
    nets, both, asked = nets_of(apart), nets_of(coupled), []
    same_weights(nets, both)
    found = [loss_of(apart, nets, "student", batch_of(6)), loss_of(coupled, both, "student", batch_of(6))]
    assert found[0].value.item() == pytest.approx(found[1].value.item(), rel=1e-6)
    for loss in found:
        loss.value.backward()
    one, other = gradients(nets["student"]), gradients(both["student"])
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name])
    for fake in (nets["fake"], both["critic"].fake):
        fake.register_forward_hook(lambda *_: asked.append("fake"))
    for each in (nets, both):
        each["teacher"].register_forward_hook(lambda *_: asked.append("teacher"))
    loss_of(apart, nets, "student", batch_of(6))
    loss_of(coupled, both, "student", batch_of(6))
    assert sorted(asked) == ["fake", "fake", "teacher", "teacher"]


def test_a_joint_critic_draws_once() -> None:
    method, drawn = method_of(**JOINT), []
    nets = nets_of(method)
    nets["student"].register_forward_hook(lambda *_: drawn.append("student"))
    loss_of(method, nets, "critic", batch_of(6))
    assert drawn == ["student"]


@pytest.mark.parametrize("backbone", [*EVERY_JOINT, FROZEN, PLAIN])
@pytest.mark.parametrize("gan_weight", [0.0, 0.1])
def test_guidance_changes_the_teachers_estimate_alone(backbone: dict[str, Any], gan_weight: float) -> None:
    plain, method = (
        method_of(**backbone, gan_weight=gan_weight),
        method_of(**backbone, gan_weight=gan_weight, guidance=2.5),
    )
    nets = nets_of(method)
    x_t, t = torch.randn(4, 1, 8, 8), torch.tensor([0.1, 1.0, 5.0, 40.0], dtype=torch.float64)
    labels = torch.eye(3)[[0, 1, 2, 1]]
    before, after = (each.views.estimates(nets, x_t, t, labels) for each in (plain, method))
    with torch.no_grad():
        wanted = guided(nets["teacher"](x_t, t, labels), nets["teacher"](x_t, t, None), 2.5)
    torch.testing.assert_close(after.teacher, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(before.fake, after.fake)
    torch.testing.assert_close(before.logits, after.logits)
    assert not after.teacher.requires_grad
    assert not after.fake.requires_grad


def test_two_ranks_with_padding_are_one_batch() -> None:
    method = method_of(**COUPLED)

    def one(rank: int, collectives: Collectives) -> tuple[Tensor, Loss]:
        batch = batch_of(4) if rank == 0 else batch_of(2, first=4, padding=2)
        with torch.enable_grad():
            loss = loss_of(method, nets[rank], "critic", batch, collectives)
            loss.value.backward()
        return torch.cat([gradient.flatten() for gradient in gradients(nets[rank]["critic"]).values()]), loss

    nets = [nets_of(method), nets_of(method)]
    parts = together(2, one)
    whole = nets_of(method)
    loss_of(method, whole, "critic", batch_of(6)).value.backward()
    wanted = torch.cat([gradient.flatten() for gradient in gradients(whole["critic"]).values()])
    torch.testing.assert_close(parts[0][0] + parts[1][0], wanted, rtol=1e-4, atol=1e-6)


def test_what_starts_from_where() -> None:
    def starts(**settings: Any) -> tuple[Any, ...]:
        spec = method_of(**COUPLED, **settings).networks()["critic"]
        return spec.init_from, spec.init_part, spec.clip_parts

    parts = ("fake", "heads")
    assert starts() == ("network:teacher", "fake", parts)
    assert starts(init_from="runs/b") == ("runs/b", None, parts)
    assert starts(init_from="runs/b", init_heads=False) == ("runs/b#fake", "fake", parts)
    assert method_of(init_from="runs/b", init_heads=False).networks()["discriminator"].init_from is None
    # Without a discriminator there is nothing to couple.
    assert list(method_of(**COUPLED, divergence="rkl", gan_weight=0.0).networks()) == ["student", "fake", "teacher"]


@pytest.mark.parametrize(
    "settings", [*EVERY_JOINT, FROZEN, *(each | {"r1": {"weight": 1.0}, "guidance": 2.0} for each in EVERY_JOINT)]
)
def test_flops_are_those_that_torch_counts(settings: dict[str, Any]) -> None:
    method, batch = method_of(**settings), batch_of(4)
    assert method.flops(batch) == pytest.approx(counted_flops(method, batch), rel=0.1)


@pytest.mark.parametrize("settings", [*EVERY_JOINT, FROZEN])
def test_the_trainer_trains_it(settings: dict[str, Any]) -> None:
    method = method_of(**settings)
    config = TrainConfig.model_validate(
        {"steps": 2, "batch_size": 6, "checkpoint": {"every_steps": None}, "optimizer": {"lr": 1e-3}}
    )
    trainer = Trainer(
        method, config, 2, lambda state: Loader(Images(), batch_size=6, seed=0, state=state), Backend(threads=1)
    )
    start = {name: p.detach().clone() for name, p in trainer.engines["teacher"].module.state_dict().items()}
    fake = trainer.engines["critic"].module.fake if settings in EVERY_JOINT else trainer.engines["fake"].module
    assert all(torch.equal(p, start[name]) for name, p in fake.state_dict().items())
    trainer.train()
    assert all(torch.equal(p, start[name]) for name, p in trainer.engines["teacher"].module.state_dict().items())
    assert all(not torch.equal(p, start[name]) for name, p in fake.state_dict().items())


def test_deepspeed_clips_the_whole_of_what_it_offloads() -> None:
    method = method_of(**COUPLED)
    modules = {name: spec.build() for name, spec in method.networks().items()}
    config = TrainConfig(steps=1)
    with pytest.raises(ConfigError, match=r"'critic' is clipped in parts \(fake, heads\)"):
        check_strategy(method, config, ParallelConfig(strategy="zero2", cpu_offload=True), 2, modules)
    unclipped = TrainConfig.model_validate({"steps": 1, "optimizer": {"clip_norm": None}})
    for strategy, train, offload in (("fsdp", config, False), ("zero2", config, False), ("zero3", unclipped, True)):
        check_strategy(method, train, ParallelConfig(strategy=strategy, cpu_offload=offload), 2, modules)


@pytest.mark.parametrize("settings", [*EVERY_JOINT, FROZEN])
def test_a_given_divergence_weighs_as_the_named_one(settings: dict[str, Any]) -> None:
    named = method_of(**settings, divergence="kl")
    own = replace(method_of(**settings, divergence="rkl"), given=divergence_of(lambda r: r * r.log()))
    assert own.weighted
    assert list(own.networks()) == list(named.networks())
    assert own.state().keys() == named.state().keys()
    assert own.flops(batch_of(2)) == named.flops(batch_of(2))
    for update in named.updates():
        values = [loss_of(m, nets_of(m), update.name, batch_of(6)).value.item() for m in (named, own)]
        assert values[0] == pytest.approx(values[1], rel=1e-6)
