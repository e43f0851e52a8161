"""One optimizer step of one network: batch to gradients, a judgement that all ranks share, then the step or none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.method import Batch, Collectives, Context, Loss, Mean, Method, Update
from generative.randomness import Streams
from generative.training import means
from generative.training.backend import Backend
from generative.training.engines import Engine

Judge = Callable[[str, float, float], str | None]
"""(update, loss, gradient norm) -> what is wrong with them, or None."""


class Share(Protocol):
    """This rank's part of a global batch: micro-batches of equal shapes on every rank, padding marked by `valid`."""

    @property
    def micro_batches(self) -> Sequence[Mapping[str, Tensor]]: ...


@dataclass(frozen=True)
class Taken:
    """What became of an update.

    Args:
        problem: why no step was taken; None if one was.
        means: loss, gradient norm and metrics over the global batch.
        lr: the learning rate of the step.
        new_state: the method's memory after it.
    """

    problem: str | None
    means: Mapping[str, Mean] = field(default_factory=dict)
    lr: float = 0.0
    new_state: Mapping[str, Tensor] = field(default_factory=dict)


class Updater:
    """Takes the updates of a method on its engines.

    Args:
        seed: of the run's noise.
        global_batch: samples in a global batch.
    """

    def __init__(
        self, method: Method, engines: Mapping[str, Engine], backend: Backend, seed: int, global_batch: int
    ) -> None:
        self.method, self.engines, self.backend = method, engines, backend
        self.seed, self.global_batch, self.streams = seed, global_batch, Streams(seed)

    def take(
        self,
        update: Update,
        repeat: int,
        share: Share,
        step: int,
        state: Mapping[str, Tensor],
        judge: Judge,
        lr_factor: float = 1.0,
    ) -> Taken:
        """Gradients of the mean over the global batch, and one optimizer step unless `judge` finds fault with them.

        Raises:
            ConfigError: the loss does not reach all parameters, or hands out new state from micro-batches.
        """
        engine = self._prepare(update)
        live = [buffer for e in self.engines.values() if e.module.training for buffer in e.buffers()]
        before = [buffer.clone() for buffer in live]
        results, new_state = self._gradients(update, repeat, share, engine, step, state)
        if engine.updates == 0:
            _check_reached(engine, update)
        norm = engine.gradient_norm()
        reduced = means.reduce(results, self.backend.collectives)
        problem = judge(update.name, float(means.value(reduced["loss"]) or 0.0), norm)
        if problem is not None:
            engine.discard()
            for buffer, old in zip(live, before, strict=True):
                buffer.copy_(old)
            return Taken(problem)
        lr = engine.step(lr_factor)
        if self.backend.world > 1:
            average_buffers(live, self.backend.collectives)
        reduced["grad_norm"] = Mean(torch.tensor(norm, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
        return Taken(None, reduced, lr, {name: tensor.detach() for name, tensor in new_state.items()})

    def _prepare(self, update: Update) -> Engine:
        """Only this update's network takes gradients; each network is in its mode."""
        for name, engine in self.engines.items():
            trained = name == update.trains
            if engine.optimizer is not None and len(self.engines) > 1:
                engine.set_trainable(trained)
            mode = update.modes.get(name, "train" if trained else "eval")
            if engine.module.training != (mode == "train"):
                engine.module.train(mode == "train")
        return self.engines[update.trains]

    def _gradients(
        self, update: Update, repeat: int, share: Share, engine: Engine, step: int, state: Mapping[str, Tensor]
    ) -> tuple[dict[str, Mean], Mapping[str, Tensor]]:
        """Backward passes of all micro-batches; the loss and metrics of this rank, still to be reduced."""
        micro_batches = [self._to_device(batch) for batch in share.micro_batches]
        contexts = [self._context(update, repeat, step, state) for _ in micro_batches]
        divisors = [
            self.method.divisor(update, b, c).detach().double() for b, c in zip(micro_batches, contexts, strict=True)
        ]
        divisor = torch.stack(divisors).sum() if len(divisors) > 1 else divisors[0]
        # The sum over ranks is on its way while the first forward pass runs.
        whole_divisor = self.backend.begin_sum(divisor)
        nets = {
            name: other.trained(update.second_order) if other is engine else other.watched()
            for name, other in self.engines.items()
        }
        # Every strategy averages gradients over ranks; the losses are sums, and wanted is sum / (global divisor).
        scale: Tensor | None = None
        results: dict[str, Mean] = {}
        new_state: Mapping[str, Tensor] = {}
        for index, (batch, context) in enumerate(zip(micro_batches, contexts, strict=True)):
            self._seed_global_generators(update, repeat, step, int(share.micro_batches[index]["sample_id"][0]))
            with engine.accumulating(last=index == len(micro_batches) - 1):
                loss: Loss = self.method.loss(update, nets, batch, context)
                if scale is None:
                    scale = (self.backend.world / whole_divisor().clamp(min=1e-12)).float()
                engine.backward(loss.value * scale)
            means.add(results, {"loss": Mean(loss.value.detach(), divisors[index]), **loss.metrics})
            new_state = loss.new_state or {}
            _check_state(update, new_state, len(micro_batches))
        return results, new_state

    def _context(self, update: Update, repeat: int, step: int, state: Mapping[str, Tensor]) -> Context:
        name = update.name if update.repeats == 1 else f"{update.name}.{repeat}"
        return Context(
            step=step,
            streams=self.streams.at(step).within(name),
            shared=self.streams.at(step).within("shared"),
            global_batch=self.global_batch,
            state=state,
            collectives=self.backend.collectives,
        )

    def _to_device(self, batch: Mapping[str, Tensor]) -> Batch:
        return {name: tensor.to(self.backend.device, non_blocking=True) for name, tensor in batch.items()}

    def _seed_global_generators(self, update: Update, repeat: int, step: int, sample: int) -> None:
        """What still draws from torch's global generators repeats itself exactly after a resume."""
        address = f"{self.seed}/{step}/{update.name}/{repeat}/{sample}"
        seed = int.from_bytes(hashlib.blake2b(address.encode(), digest_size=7).digest(), "little")
        # Not torch.manual_seed: without a GPU that queues a call, with its traceback, at every step.
        torch.default_generator.manual_seed(seed)
        if self.backend.device.type == "cuda":
            torch.cuda.manual_seed(seed)


def _check_reached(engine: Engine, update: Update) -> None:
    missing = engine.unreached()
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConfigError(
            f"the loss of update {update.name!r} gives no gradient to {', '.join(missing[:3])}{more} "
            f"of network {engine.name!r}",
            expected="a loss whose graph reaches every parameter of the network that it trains",
            remedy="use these parameters in the network's forward pass, or fix them with requires_grad_(False)",
        )


def _check_state(update: Update, new_state: Mapping[str, Any], micro_batches: int) -> None:
    if new_state and micro_batches > 1:
        raise ConfigError(
            f"update {update.name!r} hands out new state ({', '.join(new_state)}) from each of {micro_batches} "
            "micro-batches, which cannot be joined",
            expected="one micro-batch, so that the state is that of the whole batch",
            remedy="set train.micro_batch_size=null, or use more workers",
        )


def average_buffers(buffers: Sequence[Tensor], collectives: Collectives) -> None:
    """Give all ranks the same buffers: the mean of those that count in floats (batch statistics), rank 0's others."""
    buffers = [torch.view_as_real(buffer) if buffer.is_complex() else buffer for buffer in buffers]
    if not buffers:
        return
    parts = []
    for buffer in buffers:
        mine = buffer.detach().double().flatten()
        if buffer.is_floating_point():
            parts.append(mine / collectives.world)
        else:
            parts.append(mine if collectives.rank == 0 else torch.zeros_like(mine))
    flat = collectives.sum(torch.cat(parts))
    for buffer, part in zip(buffers, torch.split(flat, [part.numel() for part in parts]), strict=True):
        buffer.copy_(part.view(buffer.shape))
