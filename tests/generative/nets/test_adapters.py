"""Adapters change nothing at first, then what a change of weights would, and only while they are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from generative.errors import ConfigError
from generative.nets.adapters import Adapters


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.SiLU(), nn.Conv2d(6, 6, 3, padding=1, groups=2))
        self.told = nn.Linear(3, 6)

    def forward(self, x: torch.Tensor, told: torch.Tensor, times: float = 1.0) -> torch.Tensor:
        return times * (self.body(x) + self.told(told)[:, :, None, None])


@pytest.fixture
def case() -> tuple[Small, Adapters, tuple[torch.Tensor, torch.Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device("meta"):
            template = Small()
        return Small().requires_grad_(False), Adapters(template, 2, 4.0), (torch.randn(4, 2, 8, 8), torch.randn(4, 3))


def test_nothing_is_changed_at_first(case) -> None:
    net, adapters, inputs = case
    assert torch.equal(adapters(*inputs, base=net, times=2.0), net(*inputs, times=2.0))
    assert adapters.places == {"body.0": "body/0", "told": "told"}
    sizes = {name: tuple(p.shape) for name, p in adapters.named_parameters()}
    assert sizes == {
        "changes.body/0.down.weight": (2, 2, 3, 3),
        "changes.body/0.up.weight": (6, 2, 1, 1),
        "changes.told.down.weight": (2, 3),
        "changes.told.up.weight": (6, 2),
    }


def test_changes_are_those_of_the_weights(case) -> None:
    net, adapters, inputs = case
    before = net(*inputs)
    changed = Small()
    changed.load_state_dict(net.state_dict())
    with torch.no_grad():
        for part in adapters.changes.values():
            part.up.weight.normal_()
        conv, linear = adapters.changes["body/0"], adapters.changes["told"]
        changed.told.weight += 2.0 * linear.up.weight @ linear.down.weight
        changed.body[0].weight += 2.0 * torch.einsum("or,rikl->oikl", conv.up.weight[:, :, 0, 0], conv.down.weight)
    torch.testing.assert_close(adapters(*inputs, base=net), changed(*inputs), rtol=1e-5, atol=1e-5)
    assert torch.equal(net(*inputs), before)
    assert not any(part._forward_hooks for part in net.modules())


def test_gradients_are_the_adapters_alone(case) -> None:
    net, adapters, inputs = case
    adapters(*inputs, base=net).square().sum().backward()
    assert all(p.grad is not None for p in adapters.parameters())
    assert all(part.up.weight.grad.abs().max() > 0 for part in adapters.changes.values())
    assert all(p.grad is None for p in net.parameters())


def test_a_call_that_fails_leaves_the_network_as_it_was(case) -> None:
    net, adapters, inputs = case
    with pytest.raises(RuntimeError):
        adapters(inputs[0], torch.randn(4, 5), base=net)
    assert not any(part._forward_hooks for part in net.modules())


def test_wrapped_networks(case) -> None:
    net, adapters, inputs = case
    wrapped = nn.Module()
    wrapped.module = net
    wrapped.forward = net.forward
    assert torch.equal(adapters(*inputs, base=wrapped), net(*inputs))


def test_chosen_layers() -> None:
    assert list(Adapters(Small(), 1, 1.0, ["told"]).changes) == ["told"]
    with pytest.raises(ConfigError, match=r"'body\.2' fits no linear layer"):
        Adapters(Small(), 1, 1.0, ["told", "body.2"])
