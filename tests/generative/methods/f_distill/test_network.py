"""The networks that a configuration distils."""

from __future__ import annotations

import pytest
import torch

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.network import parts_of

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
