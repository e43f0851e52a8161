"""Activation checkpointing for networks whose forward pass changes buffers.

The backward pass runs a checkpointed part again. What the part changed the first time (running statistics, vectors of a
power iteration) must not change again, and what it read must be what it read then, even if later forward passes have
changed it since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


class _Pass(AbstractContextManager[None]):
    """The first run of a checkpointed part, or one of its repetitions; both share `kept`."""

    def __init__(self, kept: list[Any], again: bool) -> None:
        self.kept, self.again = kept, again

    def __enter__(self) -> None:
        self.place, self.outer = 0, _current.run
        if not self.again:
            self.kept.clear()
        _current.run = self

    def __exit__(self, *error: object) -> None:
        _current.run = self.outer

    def once(self, make: Callable[[], T]) -> T:
        if not self.again:
            self.kept.append(make())
        self.place += 1
        result: T = self.kept[self.place - 1]
        return result


class _Current(threading.local):
    run: _Pass | None = None


_current = _Current()


def recomputed(wanted: bool, part: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """`part(*arguments)`; if `wanted`, its activations are not kept for the backward pass but computed again there."""
    if not (wanted and torch.is_grad_enabled()):
        return part(*arguments)

    def contexts() -> tuple[_Pass, _Pass]:
        kept: list[Any] = []
        return _Pass(kept, again=False), _Pass(kept, again=True)

    # No part draws noise: it is an argument.
    result: Tensor = checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return result


def once(make: Callable[[], T]) -> T:
    """`make()`; while a part is computed again, what `make` gave at this place the first time."""
    return make() if _current.run is None else _current.run.once(make)


def again() -> bool:
    """Whether a part is being computed again, so that buffers must stay as they are."""
    return _current.run is not None and _current.run.again
