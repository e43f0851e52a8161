"""Operations of networks of other libraries, counted by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from generative.operations import Operations


def forward_flops(build: Callable[[], nn.Module], *given: Tensor, **options: Any) -> int:
    """Of one forward pass: two for each multiply-add of matrix products and convolutions. No weights are made.

    Args:
        build: makes the network.
        given: inputs of the shapes that count, on any device.
        options: further arguments of the network.
    """
    with torch.device("meta"):
        net = build()
        with Operations() as counted, torch.no_grad():
            net(*(tensor.to("meta") for tensor in given), **options)
    return int(counted.total)
