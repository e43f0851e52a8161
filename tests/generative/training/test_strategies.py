"""What a strategy cannot do is told before anything starts, with a way out."""

from __future__ import annotations

import importlib.util
from importlib import metadata

import pytest
import torch
from torch import nn

from generative.errors import ConfigError, ResourceError
from generative.training.config import ParallelConfig, TrainConfig
from generative.training.strategies import check_strategy
from tests.support.toys import Duel, Net, Penalty, Regression


def check(method=None, world=2, modules=None, train=None, **parallel):
    method = method or Regression()
    modules = modules or {name: spec.build() for name, spec in method.networks().items()}
    config = TrainConfig.model_validate({"steps": 3, **(train or {})})
    check_strategy(method, config, ParallelConfig.model_validate(parallel), world, modules)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("method", [Regression(), Duel()])
def test_plain_methods_are_allowed_everywhere(strategy, method):
    check(method, strategy=strategy)


@pytest.mark.parametrize(
    ("asked", "problem", "remedy"),
    [
        ({"strategy": "none"}, "strategy=none: 2 workers", "strategy=ddp"),
        ({"frozen": "sharded"}, "frozen=sharded with parallel.strategy=ddp", "frozen=plain"),
        ({"strategy": "zero2", "frozen": "sharded"}, "strategy=zero2, which shards no weights", "frozen=plain"),
        ({"cpu_offload": True}, "cpu_offload=true with parallel.strategy=ddp", "cpu_offload=false"),
        (
            {"strategy": "zero3", "train": {"compile": True}},
            "compile=true with parallel.strategy=zero3",
            "compile=false",
        ),
        ({"strategy": "fsdp", "method": Penalty()}, "'fit' of the method takes gradients of gradients", "strategy=ddp"),
        (
            {"strategy": "zero3", "method": Penalty()},
            "'fit' of the method takes gradients of gradients",
            "strategy=ddp",
        ),
        ({"strategy": "zero1", "world": 40}, "'net' has 36 parameters to share out among 40 workers", "strategy=ddp"),
    ],
)
def test_impossible_combinations(asked, problem, remedy):
    with pytest.raises(ConfigError) as error:
        check(**asked)
    assert problem in error.value.problem
    assert remedy in error.value.remedy


def test_scalars_have_no_rows():
    net = Net()
    net.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ConfigError, match="parameter scale of network 'net' is a scalar"):
        check(modules={"net": net}, strategy="fsdp")
    check(modules={"net": net}, strategy="zero3")


def test_partly_fixed_networks_are_refused_by_zero3_alone():
    net = Net()
    net.first.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"parameter first\.weight of network 'net' is fixed"):
        check(modules={"net": net}, strategy="zero3")
    for strategy in ("fsdp", "zero2"):
        check(modules={"net": net}, strategy=strategy)


def test_missing_and_unknown_deepspeed(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "0.25.1")
    with pytest.raises(ResourceError, match=r"with DeepSpeed 0\.25\.1"):
        check(strategy="zero1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError) as error:
        check(strategy="zero2")
    assert "not installed" in error.value.problem
    assert "generative[deepspeed]" in error.value.remedy
    check(strategy="fsdp")
