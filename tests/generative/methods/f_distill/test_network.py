"""The networks that a configuration distils."""

from __future__ import annotations

import pytest
import torch

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.method import FDistill
from generative.methods.f_distill.network import parts_of
from tests.generative.methods.f_distill.cases import loss_of, nets_of

FACTS = DataFacts(sample_shape=(3, 16, 16), classes=5)
SONG = {"name": "song", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8], "dropout": 0.3}


def config(**changes: object) -> FDistillConfig:
    return FDistillConfig.model_validate({"network": SONG, "shape": [3, 16, 16], "classes": 5} | changes)


@pytest.mark.parametrize("network", [SONG, {"name": "mlp", "width": 16, "blocks": 3, "embedding": 8}])
def test_features_are_as_told(network: dict[str, object]) -> None:
    parts = parts_of(config(network=network, augment_labels=9), FACTS)
    net = parts.build()
    levels = list(range(len(parts.maps)))
    x, sigma = torch.randn(2, *parts.shape), torch.ones(2)
    found = net(x, sigma, None, features=levels, encoder_only=True)
    assert [tuple(part.shape[1:]) for part in found] == [(m.channels, m.side, m.side) for m in parts.maps]
    assert 0 < parts.encoder_multiply_adds < parts.multiply_adds


def test_a_loss_reaches_every_parameter_even_without_augmentation() -> None:
    """What trains student and fake score calls them without labels of augmentation, which the teacher may know."""
    for network in (SONG, SONG | {"name": "dhariwal"}, {"name": "mlp", "width": 16, "blocks": 2, "embedding": 8}):
        net = parts_of(config(network=network, augment_labels=9), FACTS).build().train()
        net(torch.randn(2, 3, 16, 16), torch.ones(2), torch.eye(5)[:2]).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(("critic", "trained"), [("apart", ("discriminator", "student")), ("joint", ("critic",))])
def test_activations_may_be_computed_again(critic: str, trained: tuple[str, ...]) -> None:
    """The same gradients, and less is kept for them, whichever network is trained."""
    settings = config(critic=critic, levels=[0, 1], gan_weight=0.1, critic_updates=1)
    method = FDistill(settings, parts_of(settings, FACTS))
    nets, ids = nets_of(method), torch.arange(4)
    batch = {"sample": torch.rand(4, 3, 16, 16), "label": ids, "sample_id": ids, "position": ids, "valid": ids >= 0}
    for name in trained:
        found = []
        for again in (False, True):
            assert hasattr(nets[name], "activation_checkpointing")
            nets[name].activation_checkpointing = again
            kept: list[int] = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda t, kept=kept: (kept.append(t.nbytes), t)[1], lambda t: t
            ):
                value = loss_of(method, nets, name, batch, count=4).value
            found.append((sum(kept), torch.autograd.grad(value, list(nets[name].parameters()))))
        assert found[1][0] < found[0][0]
        torch.testing.assert_close(found[1][1], found[0][1])
    adapted = FDistill(config(critic="joint", lora={"rank": 2}), parts_of(config(), FACTS))
    assert not hasattr(adapted.networks()["critic"].build(), "activation_checkpointing")


def test_dropout_is_left_out() -> None:
    net = parts_of(config(), FACTS).build().train()
    x, sigma, seeds = torch.randn(2, 3, 16, 16), torch.ones(2), torch.arange(2)
    assert torch.equal(net(x, sigma, None, None, seeds), net(x, sigma))


@pytest.mark.parametrize(
    ("changes", "facts", "told"),
    [
        ({"network": None}, FACTS, "method.network is not given"),
        ({"shape": [1, 16, 16]}, FACTS, r"shape \[1, 16, 16\], and data of shape \[3, 16, 16\]"),
        ({}, DataFacts(sample_shape=(3, 16, 16)), "5 classes, and data without labels"),
        ({"classes": 4}, FACTS, r"4 classes, and data with 5[\s\S]*that the teacher was trained on"),
        ({"shape": None}, DataFacts(sample_shape=(2,), classes=5), "samples of shape"),
    ],
)
def test_data_that_do_not_fit_the_teacher(changes: dict[str, object], facts: DataFacts, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parts_of(config(**changes), facts)
