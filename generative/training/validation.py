"""Loss on held-out samples during training: always the same samples with the same noise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from generative.method import Batch, Context, Mean, Update
from generative.randomness import Streams
from generative.training import means
from generative.training.config import ValidationConfig
from generative.training.hooks import Hook
from generative.training.trainer import Trainer

GROUPS = 16
"""Samples are dealt to so many groups; the spread of their means gives the standard error."""
_TOTALS = "\nloss by group"
"""Goes with the metrics of a method, under a name that none of them has."""


class HeldOut(Protocol):
    """A map-style source of held-out samples."""

    def __len__(self) -> int: ...

    def fetch(self, indices: np.ndarray) -> Mapping[str, Tensor]: ...


class ValidationHook(Hook):
    """Validates every so many steps and keeps the best checkpoint.

    A group is worked on by one rank as a whole, so that the figures are the same for any number of ranks. Sample i
    belongs to group i mod 16, so that stratified times cover every group evenly.
    """

    def __init__(self, config: ValidationConfig, source: HeldOut) -> None:
        self.config, self.source = config, source

    def on_step(self, trainer: Trainer, record: dict[str, Any] | None) -> None:
        """Validate if it is due."""
        every = self.config.every_steps
        if not every or (trainer.step % every and trainer.step != trainer.steps):
            return
        record = {"kind": "validation", "step": trainer.step, "time": time.time(), "loss": {}, "metrics": {}}
        for update in trainer.updates:
            # Gradients are not to be had here, and a loss that couples samples is another one in groups.
            if not (update.second_order or update.coupled):
                self._validate(trainer, update, record)
        for hook in trainer.hooks:
            hook.on_validation(trainer, record)
        losses = [loss["value"] for loss in record["loss"].values()]
        if losses:
            trainer.validated(losses[0])

    def _validate(self, trainer: Trainer, update: Update, record: dict[str, Any]) -> None:
        count = min(self.config.samples, len(self.source))
        groups = min(GROUPS, count)
        chosen = np.linspace(0, len(self.source) - 1, count).round().astype(np.int64)
        streams = Streams(trainer.config.seed).within("validation")
        context = Context(
            step=trainer.step,
            streams=streams.within(update.name),
            shared=streams.within("shared"),
            global_batch=count,
            state=trainer.state,
        )
        sums = torch.zeros(groups, 2, dtype=torch.float64)
        metrics: dict[str, Mean] = {}
        rank, world = trainer.backend.rank, trainer.backend.world
        with trainer.evaluating(self.config.weights, whole=False) as nets:
            # Where weights are gathered in the forward pass, all ranks must call it equally often: those that have run
            # out of groups run one again, for nothing.
            for group in range(rank, rank + -(-groups // world) * world, world):
                batch = self._batch(chosen, np.arange(group % groups, count, groups), trainer.backend.device)
                loss = trainer.method.loss(update, nets, batch, context)
                counts = group < groups
                if counts:
                    sums[group, 0] = loss.value.detach()
                    sums[group, 1] = trainer.method.divisor(update, batch, context)
                means.add(metrics, loss.metrics if counts else _nothing_of(loss.metrics))
        total = Mean(sums[:, 0].to(trainer.backend.device), sums[:, 1].to(trainer.backend.device))
        every = means.reduce({_TOTALS: total, **metrics}, trainer.backend.collectives)
        reduced = every.pop(_TOTALS)
        record["metrics"][update.name] = {name: means.value(mean) for name, mean in every.items()}
        by_group = (reduced.total / reduced.count).tolist()
        record["loss"][update.name] = {
            "value": float(reduced.total.sum() / reduced.count.sum()),
            "stderr": means.standard_error(by_group),
            "n": count,
        }

    def _batch(self, chosen: np.ndarray, places: np.ndarray, device: torch.device) -> Batch:
        batch = dict(self.source.fetch(chosen[places]))
        position = torch.from_numpy(places.astype(np.int64))
        batch |= {"sample_id": position, "position": position, "valid": torch.ones(len(places), dtype=torch.bool)}
        return {name: tensor.to(device) for name, tensor in batch.items()}


def _nothing_of(metrics: Mapping[str, Mean]) -> dict[str, Mean]:
    """The same names and shapes, weighing nothing."""
    return {name: Mean(torch.zeros_like(m.total), torch.zeros_like(m.count)) for name, m in metrics.items()}
