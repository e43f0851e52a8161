"""Hooks that time the trainer's steps, and what checkpoints do to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.benchmarks.timing import synchronize
from generative.training.hooks import Hook, Record
from generative.training.trainer import Trainer

Clocks = NDArray[np.float64]
"""(time that passed, time that the cores spent on this process) in seconds."""


def _clocks() -> Clocks:
    return np.array([time.perf_counter(), time.process_time()])


class TakeTurns(Hook):
    """After each step of the trainer, one of `other`; keeps the seconds of both. Must be the last hook."""

    def __init__(self, other: Callable[[], object], device: torch.device) -> None:
        self.other, self.device = other, device
        self.trainer_seconds: list[Clocks] = []
        self.other_seconds: list[Clocks] = []
        self._began = _clocks()

    def on_start(self, trainer: Trainer) -> None:
        """The first step begins."""
        self._began = _clocks()

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """A step of the trainer with all that belongs to it is over."""
        self.trainer_seconds.append(self._lap())
        self.other()
        self.other_seconds.append(self._lap())

    def _lap(self) -> Clocks:
        synchronize(self.device)
        began, self._began = self._began, _clocks()
        return self._began - began


class StalledTrainer(Trainer):
    """Keeps how long the training thread was held up by each checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stalls: dict[int, float] = {}
        """Seconds by step."""

    def checkpoint(self, data: Mapping[str, Any] | None = None, label: str | None = None) -> None:
        """As the trainer's, timed."""
        start = time.perf_counter()
        super().checkpoint(data, label)
        self.stalls[self.step] = time.perf_counter() - start


class StepClock(Hook):
    """The seconds from one step's end to the next, and whether a checkpoint was being written meanwhile."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.busy: list[bool] = []
        """Whether the writer was at work when the step ended."""

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """Note the end of a step."""
        self.ends.append(time.perf_counter())
        self.busy.append(trainer.store is not None and trainer.store.busy)


@dataclass(frozen=True)
class Bout:
    """The steps from one checkpoint to the next, in seconds.

    Args:
        stall: what the checkpoint held the training thread up.
        writing: steps during which it was being written, the stall left out.
        idle: the steps after that.
    """

    stall: float
    writing: list[float]
    idle: list[float]

    @property
    def fraction(self) -> float:
        """Part of the time that the training thread was held up."""
        return self.stall / (self.stall + sum(self.writing) + sum(self.idle))


def bouts(clock: StepClock, stalls: Mapping[int, float], interval: int) -> Iterator[Bout]:
    """Cut the steps at the checkpoints. The checkpoint of step s is taken after the clock has noted the end of s."""
    for step in sorted(stalls):
        after = range(step, min(step + interval, len(clock.ends)))
        seconds = [clock.ends[i] - clock.ends[i - 1] - (stalls[step] if i == step else 0.0) for i in after]
        # A step is disturbed if the writer was at work when it began; the first one is in any case.
        disturbed = [i == step or clock.busy[i - 1] for i in after]
        yield Bout(
            stalls[step],
            [s for s, during in zip(seconds, disturbed, strict=True) if during],
            [s for s, during in zip(seconds, disturbed, strict=True) if not during],
        )
