"""Moving averages of weights: exponential ones, and those of power-function profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from generative.method import Average, PowerProfile

WIDEST = 0.28
"""Relative width of a profile that may be asked for; that of a plain mean over all steps is 0.2887."""


class Ema:
    """average <- rate * average + (1 - rate) * weight, in fp32, after each training step.

    Buffers are not averaged: in evaluation the module keeps its own.

    Args:
        weights: what is averaged, by name: views of the fp32 weights, or of this rank's part of them. They are also
            the start of the average.
        rate: decay rate in (0, 1), or a profile.
        ramp: the half-life is at most this part of the steps taken so far; None for the same rate from the start.
        warmup: the rate is at most (1 + n) / (10 + n) after n steps.
        publish: called after the weights were changed from here.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        rate: Average,
        publish: Callable[[], None] = lambda: None,
        ramp: float | None = None,
        warmup: bool = False,
    ) -> None:
        if isinstance(rate, float) and not 0 < rate < 1:
            raise ValueError(f"EMA rate {rate} is not between 0 and 1")
        self._power = power_exponent(rate.width) + 1 if isinstance(rate, PowerProfile) else None
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
        torch._foreach_lerp_(list(self.average.values()), list(self._weights.values()), 1 - self._rate_at(step))

    def _rate_at(self, step: int) -> float:
        if isinstance(self.rate, PowerProfile):
            assert self._power is not None
            return float((1 - 1 / step) ** self._power)
        rate = self.rate
        if self._ramp is not None:
            # rate = 0.5^(1 / half-life)
            rate = min(rate, 0.5 ** (1 / (self._ramp * step)))
        if self._warmup:
            rate = min(rate, (1 + step) / (10 + step))
        return rate

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


def power_exponent(width: float) -> float:
    """gamma of the profile p(s) = (gamma + 1) s^gamma / t^(gamma + 1), s <= t, of a relative width (eq. 2 and 3).

    The largest root of g^3 + 7 g^2 + (16 - w^-2) g + (12 - w^-2), from w = sqrt(g + 1) / ((g + 2) sqrt(g + 3)).

    Raises:
        ValueError: a width outside (0, 0.28].
    """
    if not 0 < width <= WIDEST:
        raise ValueError(f"a relative width of {width} is not above 0 and at most {WIDEST}")
    inverse = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots.real[abs(roots.imag) < 1e-9].max())
