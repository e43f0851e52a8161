"""Networks and their settings are checked before anything is made; weights to start from are compared by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from generative.errors import CheckpointError, ConfigError
from generative.method import NetworkSpec, Update
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import NetworkTraining, OptimizerConfig, TrainConfig
from generative.training.networks import (
    build_engines,
    check_networks,
    checkpoint_weights,
    initialize,
    load_weights,
)
from generative.training.state import entries
from tests.support.toys import Duel, Net, Regression


@dataclass(frozen=True)
class Wide(Regression):
    """The regression with another network width, starting point and updates."""

    width: int = 5
    init_from: str | None = None
    plan: tuple[Update, ...] = field(default=(Update("fit", "net"),))

    def networks(self):
        return {"net": NetworkSpec(lambda: Net(width=self.width), ema=self.ema, init_from=self.init_from)}

    def updates(self):
        return self.plan


def modules(method):
    with torch.device("meta"):
        return {name: spec.build() for name, spec in method.networks().items()}


def check(method, **settings):
    check_networks(method, TrainConfig(steps=3, **settings), modules(method))


@pytest.fixture
def saved(tmp_path):
    """The checkpoint of an untrained regression of width 5, and its engines."""
    engines = build_engines(Wide(), TrainConfig(steps=3, seed=11), 3, Backend())[0]
    CheckpointStore(tmp_path).save(7, entries(engines, {}, 0, 1), {}, asynchronous=False)
    return tmp_path / "step_000007", engines["net"].module


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        (Duel(), {"networks": {"studnet": NetworkTraining()}}, ["train.networks.studnet", "Did you mean student?"]),
        (
            Duel(),
            {"networks": {"critic": NetworkTraining(init_from="network:techer")}},
            ["train.networks.critic.init_from", "'techer'. Did you mean teacher?"],
        ),
        (
            Duel(),
            {"networks": {"critic": NetworkTraining(init_from="network:teacher")}},
            ["train.networks.critic.init_from", "first.weight is [5, 3] instead of [5, 4]"],
        ),
        (Regression(), {"optimizer": OptimizerConfig(no_decay=("bais",))}, ["train.optimizer.no_decay: 'bais'"]),
        (
            Duel(),
            {"networks": {"critic": NetworkTraining(optimizer=OptimizerConfig(no_decay=("bais",)))}},
            ["train.networks.critic.optimizer.no_decay: 'bais'", "'first.weight'"],
        ),
        (Duel(), {"activation_checkpointing": True}, ["train.activation_checkpointing=true", "'student'"]),
        (Wide(plan=(Update("fit", "nett"),)), {}, ["'fit'", "'nett'", "one of net"]),
        (
            Wide(plan=(Update("fit", "net", coupled=True),)),
            {"micro_batch_size": 2},
            ["train.micro_batch_size=2", "fit"],
        ),
        (Wide(init_from="/no/such/run"), {}, ["init_from of network 'net'", "/no/such/run", "no such folder"]),
    ],
)
def test_mistakes_are_found_on_modules_without_memory(method, settings, words):
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        check(method, **settings)
    for word in words:
        assert word in str(caught.value), caught.value
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(type(caught.value)) as again:
        build_engines(method, TrainConfig(steps=3, **settings), 3, Backend())
    assert str(again.value) == str(caught.value)


def test_what_is_right_passes():
    check(Duel(), optimizer=OptimizerConfig(no_decay=("*.bias", "1d")), micro_batch_size=2)
    check(Wide(plan=(Update("fit", "net", coupled=True),)))


def test_patterns_are_asked_only_of_the_optimizers_that_use_them():
    own = NetworkTraining(optimizer=OptimizerConfig())
    everything = {"student": own, "critic": own}
    check(Duel(), optimizer=OptimizerConfig(no_decay=("bais",)), networks=everything)


def test_a_start_from_a_checkpoint_takes_its_weights(saved):
    path, module = saved
    check(Wide(init_from=str(path)))
    started = build_engines(Wide(init_from=f"{path}#net"), TrainConfig(steps=3, seed=12), 3, Backend())[0]["net"].module
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(started.state_dict()[name], tensor, rtol=0, atol=0)
    fresh = build_engines(Wide(), TrainConfig(steps=3, seed=12), 3, Backend())[0]["net"].module
    assert not torch.equal(fresh.first.weight, module.first.weight)


def test_a_start_of_another_size_is_told_in_three_lines(saved):
    path, _ = saved
    with pytest.raises(CheckpointError) as caught:
        check(Wide(init_from=str(path), width=9))
    problem, expected, remedy = str(caught.value).splitlines()
    assert problem == (
        f"weights from {path} (init_from of network 'net') do not fit the network "
        "(first.bias is [5] instead of [9], first.weight is [5, 3] instead of [9, 3], "
        "last.weight is [1, 5] instead of [1, 9] and 2 more)"
    )
    assert expected.startswith("expected: ")
    assert remedy.startswith("to fix: ")
    with pytest.raises(CheckpointError, match=r"first\.bias is \[5\] instead of \[9\]"):
        initialize(Net(width=9), str(path), "net", {})


def test_a_start_reads_nothing_before_the_comparison(saved, monkeypatch):
    path, _ = saved
    monkeypatch.setattr("generative.training.checkpoint.reader.safe_open", lambda *_, **__: pytest.fail("it read"))
    monkeypatch.setattr("generative.training.checkpoint.reader._sha256", lambda _: pytest.fail("it hashed"))
    check(Wide(init_from=str(path)))


def test_a_network_that_a_checkpoint_has_not_is_told_with_those_it_has(saved):
    path, _ = saved
    with pytest.raises(CheckpointError, match="no network 'other'") as caught:
        check(Wide(init_from=f"{path}#other"))
    assert caught.value.expected == "one of net, net with average 0.9"


def test_an_average_that_was_not_kept_is_not_made_of_buffers_alone(saved):
    from generative.training.checkpoint import open_checkpoint

    path, module = saved
    checkpoint = open_checkpoint(path)
    averaged = checkpoint_weights(checkpoint, "net", 0.9)
    assert averaged.keys() == module.state_dict().keys()
    with pytest.raises(CheckpointError, match=r"no network 'net' with average 0\.5"):
        checkpoint_weights(checkpoint, "net", 0.5)


def test_names_that_do_not_fit_leave_the_module_as_it_was():
    module = Net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weights = {("other" if name == "norm.bias" else name): tensor + 1 for name, tensor in before.items()}
    with pytest.raises(CheckpointError, match=r"from here .*norm\.bias is missing, other is surplus"):
        load_weights(module, weights, "here")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


class Tied(nn.Module):
    """One matrix as the first layer and, transposed back, as the last."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.out.weight = self.into.weight


@dataclass(frozen=True)
class Shared(Regression):
    def networks(self):
        return {"net": NetworkSpec(Tied)}


def test_a_shared_parameter_is_kept_once_and_found_under_all_its_names(tmp_path):
    engines = build_engines(Shared(), TrainConfig(steps=3, seed=11), 3, Backend())[0]
    CheckpointStore(tmp_path).save(7, entries(engines, {}, 0, 1), {}, asynchronous=False)
    module = Tied()
    initialize(module, str(tmp_path / "step_000007"), "net", {})
    assert module.out.weight is module.into.weight
    assert torch.equal(module.out.weight, engines["net"].module.into.weight)
    # Exports of others may keep it under the second name only, or under both.
    for names in (["out.weight"], ["into.weight", "out.weight"]):
        load_weights(module, dict.fromkeys(names, torch.eye(3)), "here")
        assert torch.equal(module.into.weight, torch.eye(3))


class Pair(nn.Module):
    """Two networks in one module."""

    def __init__(self):
        super().__init__()
        self.left, self.right = Net(), nn.Linear(3, 1)

    def forward(self, x):
        return self.left(x) + 100 * self.right(x)[:, 0]


@dataclass(frozen=True)
class Joined(Regression):
    def networks(self):
        pair = NetworkSpec(Pair, init_from="network:base", init_part="left", clip_parts=("left", "right"))
        return {"base": NetworkSpec(Net, trainable=False), "net": pair}


def test_a_part_of_a_network_starts_elsewhere():
    check(Joined())
    engines, _ = build_engines(Joined(), TrainConfig(steps=3, seed=3), 3, Backend())
    fresh = {name: spec.build() for name, spec in Joined().networks().items()}
    pair, base = engines["net"].module, engines["base"].module
    for name, tensor in base.state_dict().items():
        assert torch.equal(pair.state_dict()[f"left.{name}"], tensor)
    assert pair.right.weight.shape == fresh["net"].right.weight.shape
    # A source that the configuration names fills the whole network.
    with pytest.raises(CheckpointError, match=r"left\.first\.bias"):
        check(Joined(), networks={"net": NetworkTraining(init_from="network:base")})


def test_parts_are_clipped_each_by_its_own_norm():
    engines, _ = build_engines(Joined(), TrainConfig(steps=3, optimizer=OptimizerConfig(clip_norm=0.5)), 3, Backend())
    engine = engines["net"]
    engine.module(torch.ones(4, 3)).sum().backward()
    parts = {part: dict(engine.module.get_submodule(part).named_parameters()) for part in ("left", "right")}
    before = {part: [p.grad.clone() for p in inside.values()] for part, inside in parts.items()}
    whole = engine.gradient_norm()
    norms = {part: torch.nn.utils.get_total_norm(gradients) for part, gradients in before.items()}
    assert whole == pytest.approx(float(sum(norm**2 for norm in norms.values()) ** 0.5))
    engine.optimizer.step = lambda: None
    engine.optimizer.zero_grad = lambda set_to_none: None
    engine.step(1.0)
    for part, inside in parts.items():
        assert norms[part] > 0.5
        for parameter, old in zip(inside.values(), before[part], strict=True):
            torch.testing.assert_close(parameter.grad, old * 0.5 / norms[part], rtol=1e-4, atol=1e-7)


def test_a_model_without_a_mask_token_starts_one_with_it():
    """All weights are taken over; the row of the mask token, which the other model lacks, stays as it was drawn."""
    config = TransformerConfig(layers=1, heads=2, width=8, ff_width=8, vocab_size=10, padding_multiple=1)
    plain, masked = (Transformer(config, causal=not mask, mask_row=mask) for mask in (False, True))
    row = masked.embedding.weight[-1].clone()
    load_weights(masked, plain.state_dict(), "here")
    assert torch.equal(masked.embedding.weight, torch.cat([plain.embedding.weight, row[None]]))
    assert torch.equal(masked.head.weight, plain.head.weight)
    with pytest.raises(CheckpointError, match=r"embedding\.weight"):
        load_weights(plain, masked.state_dict(), "here")
    with pytest.raises(CheckpointError, match=r"embedding\.weight"):
        load_weights(masked, {**plain.state_dict(), "embedding.weight": torch.zeros(9, 8)}, "here")
