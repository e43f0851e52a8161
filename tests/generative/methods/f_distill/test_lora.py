"""The fake score as the teacher with adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from generative.data.loader import Loader
from generative.nets.adapters import Adapters
from generative.training.backend import Backend
from generative.training.config import TrainConfig
from generative.training.trainer import Trainer
from tests.generative.methods.f_distill.cases import batch_of, loss_of, method_of, nets_of
from tests.generative.methods.f_distill.images import Images

LORA: dict[str, Any] = {"lora": {"rank": 2, "alpha": 4.0}}
WAYS: list[dict[str, Any]] = [{}, {"backbone": "fake_frozen"}, {"backbone": "fake"}, {"critic": "joint"}]


@pytest.mark.parametrize("way", WAYS)
def test_it_starts_as_the_teacher(way: dict[str, Any]) -> None:
    """Matching is 0 before the first update, and starts from no other network."""
    method = method_of(**LORA, **way, gan_weight=0.0)
    specs, nets = method.networks(), nets_of(method)
    fake = specs.get("fake") or specs["critic"]
    assert (fake.init_from, fake.init_part) == (None, None)
    found = loss_of(method, nets, "student", batch_of(6))
    assert float(found.metrics["matching"].total) == 0.0


@pytest.mark.parametrize("way", WAYS)
def test_only_adapters_and_heads_are_trained(way: dict[str, Any]) -> None:
    method = method_of(**LORA, **way)
    for update in method.updates():
        nets = nets_of(method)
        loss_of(method, nets, update.name, batch_of(6)).value.backward()
        for other, net in nets.items():
            given = [parameter.grad is not None for parameter in net.parameters()]
            assert all(given) if other == update.trains else not any(given), (update.name, other)


@pytest.mark.parametrize("way", WAYS)
def test_the_trainer_trains_it(way: dict[str, Any]) -> None:
    method = method_of(**LORA, **way)
    config = TrainConfig.model_validate(
        {"steps": 2, "batch_size": 6, "checkpoint": {"every_steps": None}, "optimizer": {"lr": 1e-2}}
    )
    trainer = Trainer(
        method, config, 2, lambda state: Loader(Images(), batch_size=6, seed=0, state=state), Backend(threads=1)
    )
    teacher = {name: p.detach().clone() for name, p in trainer.engines["teacher"].module.state_dict().items()}
    trainer.train()
    assert all(torch.equal(p, teacher[name]) for name, p in trainer.engines["teacher"].module.state_dict().items())
    engine = trainer.engines.get("fake") or trainer.engines["critic"]
    adapters = engine.module if isinstance(engine.module, Adapters) else engine.module.fake
    assert isinstance(adapters, Adapters)
    assert all(part.up.weight.abs().max() > 0 for part in adapters.changes.values())
    names = {name for name in engine.weights() if "heads" not in name}
    assert names
    assert all("changes." in name for name in names)  # what a checkpoint holds of it
