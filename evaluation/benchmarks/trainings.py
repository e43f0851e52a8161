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
from generative.method import DataFacts, Sampler
from generative.methods.catalogue import METHODS
from generative.randomness import Streams
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.hooks import Hook, Record
from generative.training.trainer import Trainer

Watch = Callable[[int, Trainer], None]
"""(step, trainer) -> nothing."""

TOLD_EVERY = 60.0
"""Seconds between lines about a training."""

CHECKPOINTS = 20
"""Of a training that is kept."""

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
        self.name, self.steps = name, steps
        self.begun, self.told, self.first = 0.0, 0.0, 0

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        now = time.perf_counter()
        if not self.begun:  # a training that goes on does so from some step
            self.begun, self.first, self.told = now, trainer.step, now
        if now - self.told >= TOLD_EVERY:
            self.told = now
            left = (now - self.begun) / (trainer.step - self.first) * (self.steps - trainer.step)
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
    store: CheckpointStore | None = None,
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
        store: where checkpoints go, and where it goes on from; None: nowhere.
    """
    entry = METHODS[run.method["name"]]
    method = entry.build(entry.config().model_validate(run.method), data.facts)
    every = None if store is None else max(1, steps // CHECKPOINTS)
    quiet = {"checkpoint": {"every_steps": every}, "log_every": 100}
    settings = TrainConfig.model_validate({"steps": steps, "seed": seed, **quiet, **run.train})

    def batches(state: Mapping[str, Any] | None) -> Loader:
        return Loader(data.train, batch_size=settings.batch_size, seed=seed, state=state)

    hooks: list[Hook] = [_Watcher(watch), *([_Teller(name, steps)] if name else [])]
    trainer = Trainer(method, settings, steps, batches, Backend(threads=threads), store, hooks)
    begun = time.perf_counter()
    trainer.train()
    return trainer, time.perf_counter() - begun


def draw(trainer: Trainer, count: int, weights: str = "ema") -> Tensor:
    """float32[count, *shape]: samples 0 .. count-1 of the trained or the averaged generator, on the CPU."""
    with trainer.evaluating(weights) as nets:
        return draw_with(trainer.method.sampler(nets), torch.arange(count), STREAMS)


def draw_with(sampler: Sampler, ids: Tensor, streams: Streams, labels: Tensor | None = None, size: int = 500) -> Tensor:
    """float32[N, *shape], on the CPU.

    Args:
        sampler: draws.
        ids: int64[N], of the samples.
        streams: of the noise.
        labels: int64[N], the classes; None: the sampler draws them.
        size: samples at a time.
    """
    rows = {"sample_id": ids} if labels is None else {"sample_id": ids, "label": labels}
    parts = [
        sampler({name: tensor[start : start + size] for name, tensor in rows.items()}, streams)
        for start in range(0, len(ids), size)
    ]
    return torch.cat(parts).cpu()
