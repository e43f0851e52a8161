"""Exponential moving averages of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """average <- rate * average + (1 - rate) * weight, in fp32, after each training step.

    Buffers are not averaged: in evaluation the module keeps its own.

    Args:
        weights: what is averaged, by name: views of the fp32 weights, or of this rank's part of them. They are also
            the start of the average.
        rate: decay rate in (0, 1).
        ramp: the half-life is at most this part of the steps taken so far; None for the same rate from the start.
        warmup: the rate is at most (1 + n) / (10 + n) after n steps.
        publish: called after the weights were changed from here.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        rate: float,
        publish: Callable[[], None] = lambda: None,
        ramp: float | None = None,
        warmup: bool = False,
    ) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"EMA rate {rate} is not between 0 and 1")
        self.rate, self._weights, self._publish, self._ramp = rate, dict(weights), publish, ramp
        self._warmup = warmup
        self._worn = False
        self.average: dict[str, Tensor] = {name: weight.detach().float().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step towards the current weights.

        Args:
            step: training steps completed, this one among them.
        """
        rate = self.rate
        if self._ramp is not None:
            # rate = 0.5^(1 / half-life)
            rate = min(rate, 0.5 ** (1 / (self._ramp * step)))
        if self._warmup:
            rate = min(rate, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self._weights.values()), 1 - rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averaged weights inside this context, which may be entered again within itself."""
        if self._worn:
            yield
            return
        self._swap()
        self._worn = True
        try:
            yield
        finally:
            self._swap()
            self._worn = False

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            mine = weight.clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(mine)
        self._publish()
