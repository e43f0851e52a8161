"""Whole copies of networks whose weights are spread over the ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from generative.method import Collectives
from generative.training.engines.base import Engine


@torch.no_grad()
def whole_copy(engine: Engine, build: Callable[[], nn.Module], group: Collectives, device: torch.device) -> nn.Module:
    """A frozen copy in eval mode, on every rank, with fp32 weights; all ranks must call.

    Args:
        build: makes a module of the same structure.
    """
    # Not on the meta device: filling it would untie what networks share between their parts.
    with torch.random.fork_rng(devices=[]):
        module = build().to(device)
    # A rank's part of a tensor follows that of the rank before it, so the parts in rank order are the tensor.
    for name, entry in engine.weights().items():
        whole = group.gather(entry.tensor.detach().reshape(-1).to(device))
        module.get_parameter(name).copy_(whole.view(entry.full_shape))
    for name, tensor in engine.fixed().items():
        module.get_parameter(name).copy_(tensor)
    for name, buffer in engine.module.named_buffers():
        module.get_buffer(name).copy_(buffer)
    return module.eval().requires_grad_(False)
