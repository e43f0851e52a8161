from __future__ import annotations

import torch
from torch import nn

from generative.nets.shapes import shapes_only


def layers() -> nn.Module:
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3), nn.Conv2d(3, 2, 3), nn.LayerNorm(3))


def test_shapes_are_those_of_the_network_and_nothing_is_drawn():
    real = {name: tensor.shape for name, tensor in layers().state_dict().items()}
    before = torch.get_rng_state()
    with shapes_only():
        found = layers().state_dict()
    assert {name: tensor.shape for name, tensor in found.items()} == real
    assert all(tensor.is_meta for tensor in found.values())
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_with_memory_are_drawn_all_the_same():
    with shapes_only():
        tensor = nn.init.ones_(torch.zeros(3, device="cpu"))
        drawn = torch.zeros(100, device="cpu").uniform_(1, 2)
    assert tensor.tolist() == [1, 1, 1]
    assert bool((drawn >= 1).all())
