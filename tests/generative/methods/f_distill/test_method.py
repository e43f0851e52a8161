"""What the method promises, with a tiny diffusion network in the place of a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generative.data.loader import Loader
from generative.errors import ConfigError
from generative.method import Collectives, Loss
from generative.methods.f_distill.divergences import divergence_of
from generative.methods.f_distill.method import FDistill
from generative.randomness import Streams
from generative.training.activations import FakeRun
from generative.training.backend import Backend
from generative.training.config import TrainConfig
from generative.training.trainer import Trainer
from tests.generative.methods.f_distill.cases import (
    batch_of,
    check_gradients,
    counted_flops,
    loss_of,
    method_of,
    nets_of,
)
from tests.generative.methods.f_distill.images import Images
from tests.generative.methods.f_distill.tiny import CLASSES, PARTS, SHAPE
from tests.support.ranks import together

UPDATES = ("fake_score", "discriminator", "student")


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("settings", [{}, {"r1": {"weight": 2.0}, "time": {"real": "shared"}}, {"guidance": 2.0}])
def test_only_the_trained_network_gets_gradients(name: str, settings: dict[str, Any]) -> None:
    check_gradients(method_of(**settings), name)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("divergence", ["js", "rkl", "kl"])
def test_two_ranks_with_padding_are_one_batch(name: str, divergence: str) -> None:
    method = method_of(divergence=divergence)

    def gradient(nets: dict[str, nn.Module], found: Loss) -> Tensor:
        found.value.backward()
        trained = next(u.trains for u in method.updates() if u.name == name)
        return torch.cat([parameter.grad.flatten() for parameter in nets[trained].parameters()])

    nets = nets_of(method)
    found = loss_of(method, nets, name, batch_of(6))
    whole = gradient(nets, found)

    def one(rank: int, collectives: Collectives) -> tuple[Tensor, Loss]:
        batch = batch_of(4) if rank == 0 else batch_of(2, first=4, padding=2)
        with torch.enable_grad():
            mine = nets_of_rank[rank]
            loss = loss_of(method, mine, name, batch, collectives)
            return gradient(mine, loss), loss

    nets_of_rank = [nets_of(method), nets_of(method)]
    parts = together(2, one)
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole, rtol=1e-4, atol=1e-6)
    for key, value in (found.new_state or {}).items():
        for _, loss in parts:
            assert loss.new_state is not None
            torch.testing.assert_close(loss.new_state[key], value)
    for key, metric in found.metrics.items():
        if key != "auc_by_time":  # of pairs within a rank
            total = sum(loss.metrics[key].total for _, loss in parts)
            torch.testing.assert_close(total, metric.total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"ratio": {"binning": "linear", "bins": 3}}])
def test_the_bins_that_are_told_are_those_of_the_curves(settings: dict[str, Any]) -> None:
    method = method_of(**settings)
    nets, told = nets_of(method), method.curves()
    found = [loss_of(method, nets, name, batch_of(6)).metrics for name in UPDATES]
    curves = {name: mean.total for metrics in found for name, mean in metrics.items() if mean.total.dim()}
    assert curves.keys() == told.keys()
    for name, curve in curves.items():
        assert told[name].log
        assert len(told[name].edges) == len(curve) + 1
        assert told[name].edges[1:-1] == tuple(method.weights.edges.tolist())
    assert method_of(divergence="rkl", gan_weight=0.0, levels=None).curves() == {}


def test_the_adversarial_loss_reaches_the_student_through_the_teacher() -> None:
    """Central differences of the loss along a direction; matching alone has a constant target and so another slope."""
    method = method_of(divergence="rkl", gan_weight=1.0)
    nets = nets_of(method)

    def told() -> dict[str, float]:
        found = loss_of(method, nets, "student", batch_of(6))
        found.value.backward()
        return {key: float(mean.total) for key, mean in found.metrics.items()}

    parameter = nets["student"].last.bias
    told()
    joint = float(parameter.grad)
    nets["student"].zero_grad()
    loss_of(method_of(divergence="rkl", gan_weight=0.0, levels=None), nets, "student", batch_of(6)).value.backward()
    matching = float(parameter.grad)
    slopes = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            parameter += step
        slopes.append(told()["gan"])
        with torch.no_grad():
            parameter -= step
    assert joint - matching == pytest.approx((slopes[0] - slopes[1]) / 2e-2, rel=0.02)


@pytest.mark.parametrize("gan_weight", [0.0, 0.1])
def test_guidance_asks_the_teacher_without_a_class(gan_weight: float) -> None:
    """In one batch where nothing is kept for a backward pass; else apart, so that activations are not kept twice."""
    method = method_of(guidance=3.0, gan_weight=gan_weight)
    nets, asked = nets_of(method), []
    nets["teacher"].register_forward_hook(lambda module, inputs, output: asked.append(inputs[2]))
    loss_of(method, nets, "student", batch_of(6))
    told = torch.nn.functional.one_hot(batch_of(6)["label"], CLASSES).float()
    rows = [told, torch.zeros_like(told)] if gan_weight else [torch.cat([told, torch.zeros_like(told)])]
    assert len(asked) == len(rows)
    assert all(torch.equal(a, b) for a, b in zip(asked, rows, strict=True))
    asked.clear()
    loss_of(method_of(), nets, "student", batch_of(6))
    assert len(asked) == 1


def test_what_reverse_kl_leaves_out() -> None:
    """No weights: no memory, and batches may be split. Without the adversarial loss besides: no discriminator."""
    dmd2 = method_of(divergence="rkl")
    assert dmd2.state() == {}
    assert not any(update.coupled for update in dmd2.updates())
    assert "discriminator" in dmd2.networks()
    dmd = method_of(divergence="alpha", alpha=0.0, gan_weight=0.0)
    assert list(dmd.networks()) == ["student", "fake", "teacher"]
    assert [update.name for update in dmd.updates()] == ["fake_score", "student"]
    assert loss_of(dmd, nets_of(dmd), "student", batch_of(6)).new_state is None
    f_distill = method_of(gan_weight=0.0)
    assert [update.coupled for update in f_distill.updates()] == [False, False, True]
    assert loss_of(f_distill, nets_of(f_distill), "student", batch_of(6)).new_state is not None


def test_alpha_and_given_divergences_weigh_alike() -> None:
    named, family = method_of(divergence="kl"), method_of(divergence="alpha", alpha=1.0)
    own = FDistill(named.config, PARTS, given=divergence_of(lambda r: r * r.log()))
    values = [loss_of(m, nets_of(m), "student", batch_of(6)).value.item() for m in (named, family, own)]
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)


def test_what_starts_from_where() -> None:
    networks = method_of(teacher="runs/a").networks()
    assert {name: spec.init_from for name, spec in networks.items()} == {
        "student": "network:teacher",
        "fake": "network:teacher",
        "teacher": "runs/a#net",
        "discriminator": None,
    }
    assert not networks["teacher"].trainable
    second = method_of(teacher="runs/a#other", init_from="runs/b").networks()
    assert [spec.init_from for spec in second.values()] == ["runs/b", "runs/b", "runs/a#other", "runs/b"]


@pytest.mark.parametrize("heads", [True, False])
def test_an_average_to_start_from_is_the_students(heads: bool) -> None:
    """Fake score and discriminator never start from weights of the student."""
    named = {"init_from": "runs/b#student@0.5", "init_heads": heads}
    found = {name: spec.init_from for name, spec in method_of(**named).networks().items()}
    wanted = {"student": "runs/b#student@0.5", "fake": "runs/b", "discriminator": "runs/b" if heads else None}
    assert found == wanted | {"teacher": None}
    critic = method_of(**named, critic="joint").networks()["critic"]
    assert critic.init_from == ("runs/b" if heads else "runs/b#fake")


def test_samples_do_not_depend_on_the_batch() -> None:
    method = method_of()
    sampler = method.sampler(nets_of(method))
    every = sampler({"sample_id": torch.arange(5)}, Streams(0))
    assert every.shape == (5, *SHAPE)
    torch.testing.assert_close(sampler({"sample_id": torch.tensor([3])}, Streams(0))[0], every[3])
    labels = Streams(0).integers("label", torch.arange(5), CLASSES)
    torch.testing.assert_close(sampler({"sample_id": torch.arange(5), "label": labels}, Streams(0)), every)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guidance": 2.0},
        {"gan_weight": 0.0},
        {"divergence": "rkl", "gan_weight": 0.0},
        {"r1": {"weight": 1.0}},
        {"ratio": {"recalibration": {}}},
    ],
)
def test_flops_are_those_that_torch_counts(settings: dict[str, Any]) -> None:
    method, batch = method_of(**settings), batch_of(4)
    counted = counted_flops(method, batch)
    # The first layers need no gradient of their input.
    assert method.flops(batch) == pytest.approx(counted, rel=0.1)
    # A plan, whose fake weights put out no numbers, sees the same.
    assert FakeRun(method).flops(batch) == counted


def test_the_trainer_trains_it() -> None:
    method = method_of()
    settings = TrainConfig.model_validate(
        {"steps": 3, "batch_size": 6, "checkpoint": {"every_steps": None}, "optimizer": {"lr": 1e-3}}
    )

    def batches(state: Any) -> Loader:
        return Loader(Images(), batch_size=6, seed=0, state=state)

    trainer = Trainer(method, settings, 3, batches, Backend(threads=1))
    trainer.train()
    weights = {name: engine.module.state_dict() for name, engine in trainer.engines.items()}
    for name in weights["teacher"]:
        assert torch.equal(weights["teacher"][name], nets_of_trainer(method, settings)[name])
    for name in ("student", "fake"):
        assert not torch.equal(weights[name]["first.weight"], weights["teacher"]["first.weight"])
    assert trainer.engines["fake"].updates == 6
    # Eighteen samples came to two bins, each of which is renewed at eight or more.
    assert not torch.equal(trainer.state["ratio_means"], torch.ones(2, dtype=torch.float64))


def nets_of_trainer(method: FDistill, settings: TrainConfig) -> dict[str, Tensor]:
    """The teacher's weights at the start of a run."""
    fresh = Trainer(method, settings, 0, lambda state: Loader(Images(), batch_size=6, seed=0), Backend(threads=1))
    return fresh.engines["teacher"].module.state_dict()


def test_levels_that_there_are_not() -> None:
    with pytest.raises(ConfigError, match=r"levels=\[2\] of a network with 2 levels"):
        method_of(levels=[2])


def test_data_without_classes() -> None:
    method, batch = method_of(), batch_of(2)
    del batch["label"]
    with pytest.raises(ConfigError, match="3 classes"):
        loss_of(method, nets_of(method), "student", batch)
    plain = FDistill(method.config, replace(PARTS, classes=0))
    assert plain.parts.labels(batch) is None
