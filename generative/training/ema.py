"""Exponential moving averages of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """average <- rate * average + (1 - rate) * weight, in fp32, after each training step.

    Buffers are not averaged: in evaluation the module keeps its own.

    Args:
        module: the network, whose fp32 weights are the start of the average.
        rate: decay rate in (0, 1).
    """

    def __init__(self, module: nn.Module, rate: float) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"EMA rate {rate} is not between 0 and 1")
        self.rate = rate
        self._parameters = dict(module.named_parameters())
        self.average: dict[str, Tensor] = {
            name: parameter.detach().float().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the current weights."""
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights inside this context. Storage is swapped, nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self.average[name] = self.average[name], parameter.data
