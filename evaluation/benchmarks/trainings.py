"""Networks that benchmarks train for themselves, in this process and without a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from evaluation.benchmarks.figure import say
from evaluation.quantities import duration
from generative.data.loader import Loader
from generative.data.sources import Source
from generative.method import DataFacts
from generative.methods.catalogue import METHODS
from generative.randomness import Streams
from generative.training.backend import Backend
from generative.training.config import TrainConfig
from generative.training.hooks import Hook, Record
from generative.training.trainer import Trainer

Watch = Callable[[int, Trainer], None]
"""(step, trainer) -> nothing."""

TOLD_EVERY = 60.0
"""Seconds between lines about a training."""

STREAMS = Streams(0).within("bench")


@dataclass(frozen=True)
class Training:
    """What is trained.

    Args:
        method: the section `method`, with its name.
        train: the section `train`, without steps and seed.
    """

    method: Mapping[str, Any]
    train: Mapping[str, Any]


class _Watcher(Hook):
    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        self.watch(trainer.step, trainer)


class _Teller(Hook):
    """Says now and then how far a training is."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.begun, self.told = name, steps, time.perf_counter(), time.perf_counter()

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        now = time.perf_counter()
        if now - self.told >= TOLD_EVERY:
            self.told = now
            left = (now - self.begun) / trainer.step * (self.steps - trainer.step)
            say(f"  {self.name}: step {trainer.step:,} of {self.steps:,}, about {duration(left)} left")


class Opened(Protocol):
    """Data that are ready to be trained on."""

    @property
    def train(self) -> Source:
        """Samples."""
        ...

    @property
    def facts(self) -> DataFacts:
        """What builds the networks."""
        ...


def train(
    run: Training,
    data: Opened,
    steps: int,
    seed: int,
    threads: int = 1,
    watch: Watch = lambda step, trainer: None,
    name: str = "",
) -> tuple[Trainer, float]:
    """Train on this process's device; the trainer, and the seconds that it took.

    Args:
        run: the method and how it is trained.
        data: to train on.
        steps: cycles of updates.
        seed: of weights, order and noise.
        threads: of torch.
        watch: called after each step.
        name: of the training in the lines that tell how far it is; without one nothing is told.
    """
    entry = METHODS[run.method["name"]]
    method = entry.build(entry.config().model_validate(run.method), data.facts)
    quiet = {"checkpoint": {"every_steps": None}, "log_every": 100}
    settings = TrainConfig.model_validate({"steps": steps, "seed": seed, **quiet, **run.train})

    def batches(state: Mapping[str, Any] | None) -> Loader:
        return Loader(data.train, batch_size=settings.batch_size, seed=seed, state=state)

    hooks: list[Hook] = [_Watcher(watch), *([_Teller(name, steps)] if name else [])]
    trainer = Trainer(method, settings, steps, batches, Backend(threads=threads), hooks=hooks)
    begun = time.perf_counter()
    trainer.train()
    return trainer, time.perf_counter() - begun


def draw(trainer: Trainer, count: int, weights: str = "ema", size: int = 500) -> Tensor:
    """float32[count, *shape]: samples 0 .. count-1 of the trained or the averaged generator, on the CPU."""
    with trainer.evaluating(weights) as nets:
        sampler = trainer.method.sampler(nets)
        parts = [
            sampler({"sample_id": torch.arange(start, min(start + size, count))}, STREAMS)
            for start in range(0, count, size)
        ]
    return torch.cat(parts).cpu()
