"""The method around the tiny network, its networks, batches, and the loss of one update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from generative.method import Alone, Collectives, Context, Loss
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.method import FDistill
from generative.randomness import Streams
from tests.generative.methods.f_distill.tiny import CLASSES, PARTS, SHAPE

SMALL: dict[str, Any] = {"critic_updates": 2, "ratio": {"bins": 2}, "levels": [0, 1], "gan_weight": 0.1}


def method_of(**settings: Any) -> FDistill:
    return FDistill(FDistillConfig.model_validate(SMALL | settings), PARTS)


def nets_of(method: FDistill) -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: spec.build() for name, spec in method.networks().items()}


def batch_of(count: int, first: int = 0, padding: int = 0) -> dict[str, Tensor]:
    ids = torch.arange(first, first + count)
    sample = torch.stack([torch.rand(SHAPE, generator=torch.Generator().manual_seed(int(i))) for i in ids]) * 2 - 1
    batch = {"sample": sample, "label": ids % CLASSES, "sample_id": ids, "position": ids, "valid": ids >= 0}
    if not padding:
        return batch
    wild = {
        key: torch.cat([value, value[:1].repeat(padding, *[1] * (value.dim() - 1))]) for key, value in batch.items()
    }
    wild["valid"][count:] = False
    wild["sample_id"][count:] = 10**6
    wild["sample"][count:] = 50.0
    return wild


def loss_of(
    method: FDistill,
    nets: dict[str, nn.Module],
    name: str,
    batch: dict[str, Tensor],
    collectives: Collectives | None = None,
    count: int = 6,
) -> Loss:
    update = next(u for u in method.updates() if u.name == name)
    context = Context(3, Streams(0, 3).within(name), count, method.state(), collectives or Alone())
    for other, net in nets.items():
        net.requires_grad_(other == update.trains)
    return method.loss(update, nets, batch, context)


def counted_flops(method: FDistill, batch: dict[str, Tensor]) -> int:
    """What torch counts in all updates of one step."""
    nets, counted = nets_of(method), 0
    for update in method.updates():
        with FlopCounterMode(display=False) as counter:
            loss_of(method, nets, update.name, batch).value.backward()
        counted += counter.get_total_flops() * update.repeats
    return counted


def check_gradients(method: FDistill, name: str) -> None:
    """All of the network that the update trains has a gradient, and nothing else has one."""
    nets = nets_of(method)
    loss_of(method, nets, name, batch_of(6)).value.backward()
    trained = next(u.trains for u in method.updates() if u.name == name)
    for other, net in nets.items():
        given = [parameter.grad is not None for parameter in net.parameters()]
        assert all(given) if other == trained else not any(given), other
