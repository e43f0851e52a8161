"""The only loop that trains networks."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from generative.errors import AnomalyError, CheckpointError, GenerativeError, PeerError
from generative.method import Batch, Context, Loss, Mean, Method, Update
from generative.randomness import Streams
from generative.training import means
from generative.training.anomaly import AnomalyGuard
from generative.training.backend import Backend, Engine
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.hooks import Hook, Record
from generative.training.networks import build_engines
from generative.training.state import entries, restore

State = Literal["complete", "interrupted"]


class Share(Protocol):
    """This rank's part of a global batch: micro-batches of equal shapes on every rank, padding marked by `valid`."""

    @property
    def micro_batches(self) -> Sequence[Mapping[str, Tensor]]: ...


class Batches(Protocol):
    """Where global batches come from (`generative.data.loader.Loader`)."""

    def __next__(self) -> Share: ...

    def state(self, collectives: Any) -> Mapping[str, Any]: ...


class Trainer:
    """Trains the networks of a method.

    One step is one cycle over the method's due updates: batch from the cursor; only the update's network requires
    gradients; micro-batches; backward; a finite check that all ranks agree on; clip and step. Then averages, hooks, and
    a checkpoint if one is due.

    Args:
        method: what to train.
        config: how; `steps` must be given apart, since it may follow from a budget.
        batches: makes the iterator of global batches from a cursor (None: from the start).
        backend: process group and device.
        store: where checkpoints go; None keeps nothing.
        hooks: watchers, called on all ranks.
        stop: asked before each step on each rank; True ends the run with a checkpoint.
        meta: further facts for the checkpoint's `meta` (JSON).
    """

    def __init__(
        self,
        method: Method,
        config: TrainConfig,
        steps: int,
        batches: Callable[[Mapping[str, Any] | None], Batches],
        backend: Backend,
        store: CheckpointStore | None = None,
        hooks: Sequence[Hook] = (),
        stop: Callable[[], bool] = lambda: False,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        if backend.precision != config.precision:
            raise ValueError(f"the backend runs in {backend.precision}, the configuration asks for {config.precision}")
        self.method, self.config, self.steps, self.backend = method, config, steps, backend
        self.store, self.hooks, self._stop, self._meta = store, list(hooks), stop, dict(meta or {})
        self.updates = list(method.updates())
        self.engines: dict[str, Engine] = build_engines(method, config, steps, backend)
        self.state: dict[str, Tensor] = {k: v.to(backend.device) for k, v in method.state().items()}
        self.streams = Streams(config.seed)
        self.guard = AnomalyGuard(config.anomaly)
        self.step = 0
        self.samples = 0
        self.lr_factor = 1.0
        self._open_batches = batches
        self.batches: Batches | None = None
        self._pending: dict[str, Mean] = {}
        self._lr: dict[str, float] = {}
        self._since = (time.perf_counter(), 0)
        self._saved = -1
        self._before: tuple[int, dict[str, Any], int] = (0, {}, 0)
        self.best: dict[str, float] | None = None

    # ------------------------------------------------------------------ the run

    def train(self) -> State:
        """Run to the last step, or to a stop request; resume from the newest complete checkpoint first.

        Returns:
            "complete", or "interrupted" (a checkpoint of the current step is written: call again to go on).

        Raises:
            AnomalyError: policy `stop`, or its limit is reached.
            CheckpointError: a checkpoint could not be written on some rank.
        """
        self.batches = self._open_batches(self._resume())
        for hook in self.hooks:
            hook.on_start(self)
        self._since = (time.perf_counter(), self.samples)
        if self.config.anomaly.policy == "rollback" and self.store and not self.store.complete_steps():
            self.checkpoint()
        while self.step < self.steps:
            if self._told_to_stop():
                return self._end("interrupted")
            if self._cycle():
                self._after_step()
        return self._end("complete")

    def _end(self, state: State) -> State:
        if self.store is not None:
            self.checkpoint()
            self._settle()
        for hook in self.hooks:
            hook.on_end(self, state)
        return state

    def _told_to_stop(self) -> bool:
        """Whether any rank was told to stop; an error of any rank's checkpoint writer is raised on all ranks."""
        return self._together(self._stop(), self.store.poll if self.store is not None else _nothing)

    def _settle(self) -> None:
        """Wait until the last checkpoint is complete; an error of any rank is raised on all."""
        if self.store is not None:
            self._patiently(self.store.wait)

    def _patiently(self, action: Callable[[], None]) -> None:
        """`_together` for what may take longer than a collective on some ranks (a slow disk)."""

        def all_of_it() -> None:
            with self.backend.patience.together():
                action()

        self._together(False, all_of_it)

    def _together(self, stop: bool, action: Callable[[], None]) -> bool:
        """Run `action` on every rank, then agree on whether it failed anywhere and whether anyone wants to stop."""
        error: GenerativeError | None = None
        try:
            action()
        except GenerativeError as raised:
            error = raised
        flags = torch.tensor([float(stop), float(error is not None)], device=self.backend.device)
        if self.backend.world > 1:
            flags = self.backend.collectives.sum(flags)
        anyone, failed = flags.tolist()
        if failed:
            raise (
                error.on_all_ranks() if error else PeerError("another worker could not write its part of a checkpoint")
            )
        return bool(anyone)

    def _after_step(self) -> None:
        self.step += 1
        record = self._record() if self.step % self.config.log_every == 0 or self.step == self.steps else None
        for hook in self.hooks:
            hook.on_step(self, record)
        every = self.config.checkpoint.every_steps
        if every and self.step % every == 0 and self.step < self.steps:
            self.checkpoint()

    # ------------------------------------------------------------------ one step

    def _cycle(self) -> bool:
        """All due updates of one step; False if the run went back to a checkpoint instead."""
        share: Share | None = None
        assert self.batches is not None
        self._before = (self.samples, dict(self.batches.state(self.backend.collectives)), self._updates_taken())
        for update in self.updates:
            if self.step % update.every:
                continue
            for repeat in range(update.repeats):
                if share is None or update.batch == "own":
                    share = self._next_share()
                if not self._update(update, repeat, share):
                    return False
        for engine in self.engines.values():
            for ema in engine.emas:
                ema.update()
        return True

    def _next_share(self) -> Share:
        assert self.batches is not None
        share = next(self.batches)
        self.samples += self.config.batch_size
        return share

    def _update(self, update: Update, repeat: int, share: Share) -> bool:
        """One optimizer step, or what the anomaly policy does instead; False after a rollback."""
        engine = self._prepare(update)
        buffers = [(b, b.clone()) for e in self.engines.values() for b in e.module.buffers()]
        results, new_state = self._gradients(update, repeat, share, engine)
        norm = engine.clip()
        reduced = means.reduce(results, self.backend.collectives)
        loss, grad_norm = float(means.value(reduced["loss"]) or 0.0), float(norm)
        problem = self.guard.verdict(update.name, loss, grad_norm)
        if problem is not None:
            engine.zero_grad()
            for buffer, before in buffers:
                buffer.copy_(before)
            return self._anomaly(update, problem)
        self._lr[update.name] = engine.step(self.lr_factor)
        engine.zero_grad()
        self.state.update({name: tensor.detach() for name, tensor in new_state.items()})
        reduced["grad_norm"] = Mean(torch.tensor(grad_norm), torch.tensor(1.0))
        means.add(self._pending, {f"{update.name}\n{name}": mean for name, mean in reduced.items()})
        return True

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
        self, update: Update, repeat: int, share: Share, engine: Engine
    ) -> tuple[dict[str, Mean], dict[str, Tensor]]:
        """Gradients of the mean over the global batch; the loss and metrics of this rank, still to be reduced."""
        micro_batches = [self._to_device(batch) for batch in share.micro_batches]
        contexts = [self._context(update, repeat) for _ in micro_batches]
        divisors = [
            self.method.divisor(update, b, c).detach().double() for b, c in zip(micro_batches, contexts, strict=True)
        ]
        divisor = torch.stack(divisors).sum() if len(divisors) > 1 else divisors[0]
        if self.backend.world > 1:
            divisor = self.backend.collectives.sum(divisor)
        nets = {name: other.wrapped if name == update.trains else other.module for name, other in self.engines.items()}
        # DDP averages gradients over ranks; the losses are sums, and wanted is sum / (global divisor).
        scale = (self.backend.world / divisor.clamp(min=1e-12)).float()
        results: dict[str, Mean] = {}
        new_state: dict[str, Tensor] = {}
        for index, (batch, context) in enumerate(zip(micro_batches, contexts, strict=True)):
            self._seed_global_generators(update, repeat, int(share.micro_batches[index]["sample_id"][0]))
            with self.backend.local_gradients(engine, local=index < len(micro_batches) - 1):
                loss: Loss = self.method.loss(update, nets, batch, context)
                self.backend.backward(loss.value * scale)
            means.add(results, {"loss": Mean(loss.value.detach(), divisors[index]), **loss.metrics})
            new_state.update(loss.new_state or {})
        return results, new_state

    def _context(self, update: Update, repeat: int) -> Context:
        return Context(
            step=self.step,
            streams=self.streams.at(self.step).within(
                update.name if update.repeats == 1 else f"{update.name}.{repeat}"
            ),
            global_batch=self.config.batch_size,
            state=self.state,
            collectives=self.backend.collectives,
        )

    def _to_device(self, batch: Mapping[str, Tensor]) -> Batch:
        return {name: tensor.to(self.backend.device, non_blocking=True) for name, tensor in batch.items()}

    def _seed_global_generators(self, update: Update, repeat: int, sample: int) -> None:
        """What still draws from torch's global generators repeats itself exactly after a resume."""
        address = f"{self.config.seed}/{self.step}/{update.name}/{repeat}/{sample}"
        seed = int.from_bytes(hashlib.blake2b(address.encode(), digest_size=7).digest(), "little")
        # Not torch.manual_seed: without a GPU that queues a call, with its traceback, at every step.
        torch.default_generator.manual_seed(seed)
        if self.backend.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # ------------------------------------------------------------------ when something is wrong

    def _anomaly(self, update: Update, problem: str) -> bool:
        """The policy's answer; True goes on with the step, False if the run went back."""
        policy = self.config.anomaly.policy
        where = (
            f"step {self.step + 1}, update {update.name!r}, "
            f"samples {self.samples - self.config.batch_size} to {self.samples - 1}, seed {self.config.seed}"
        )
        self.event("anomaly", f"{problem} at {where}; policy {policy}")
        if self.guard.exhausted():
            self._save_state_before()
            raise AnomalyError(
                f"{problem} at {where}",
                expected="finite losses and gradients" if "sigma" not in problem else "a loss near its recent mean",
                remedy="give the same command again to replay exactly this step (the state before it is saved); add "
                "train.anomaly.policy=skip (or rollback) to get past it; for another learning rate start a new run",
            ).on_all_ranks()
        if policy == "skip":
            return True
        self._rollback()
        return False

    def _save_state_before(self) -> None:
        """Checkpoint of the state before this step, so that the same command replays it.

        Left out where an earlier update of the step has changed a network already: then the replay begins at the newest
        checkpoint, which is just as exact.
        """
        samples, data, updates = self._before
        if self.store is None or updates != self._updates_taken():
            return
        self.samples = samples
        self.checkpoint(data)
        self._settle()

    def _updates_taken(self) -> int:
        return sum(engine.updates for engine in self.engines.values())

    def _rollback(self) -> None:
        """Back to the newest checkpoint, but with the data after the bad batch, and a lower learning rate."""
        assert self.store is not None
        self._settle()
        self.guard.rollbacks += 1
        rollbacks, samples = self.guard.rollbacks, self.samples
        factor = self.lr_factor * self.config.anomaly.rollback_lr
        self._resume()
        self.guard.rollbacks, self.lr_factor, self.samples = rollbacks, factor, samples
        self._pending.clear()
        self._since = (time.perf_counter(), self.samples)
        self.event("rollback", f"back to step {self.step}; learning rate x {factor:g}")

    # ------------------------------------------------------------------ records and checkpoints

    def event(self, kind: str, message: str) -> None:
        """Tell the hooks something worth a person's attention."""
        for hook in self.hooks:
            hook.on_event(self, kind, message)

    def validated(self, loss: float) -> None:
        """Keep the checkpoint of this step if its validation loss is the lowest so far."""
        if self.store is None or not self.config.checkpoint.keep_best:
            return
        if not math.isfinite(loss):
            return
        if self.best is None or loss < self.best["loss"]:
            self.best = {"step": self.step, "loss": loss}
            self._patiently(partial(self.store.protect, self.step))
            self.checkpoint()

    def networks(self) -> dict[str, torch.nn.Module]:
        """The bare networks by name."""
        return {name: engine.module for name, engine in self.engines.items()}

    @contextlib.contextmanager
    def evaluating(self, weights: str = "trained") -> Iterator[dict[str, torch.nn.Module]]:
        """The networks in eval mode without gradients; weights="ema": those that have averages wear the first one."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for engine in self.engines.values():
                engine.module.eval()
                if weights == "ema" and engine.emas:
                    stack.enter_context(engine.emas[0].applied())
            yield self.networks()

    def _record(self) -> Record:
        """The means since the last record."""
        now = time.perf_counter()
        seconds, samples = now - self._since[0], self.samples - self._since[1]
        self._since = (now, self.samples)
        record: Record = {"kind": "train", "step": self.step, "time": time.time()}
        record |= {"loss": {}, "grad_norm": {}, "lr": dict(self._lr), "metrics": {}}
        for key, mean in self._pending.items():
            update, name = key.split("\n")
            if name in ("loss", "grad_norm"):
                record[name][update] = means.value(mean)
            else:
                record["metrics"].setdefault(update, {})[name] = means.value(mean)
        self._pending.clear()
        return record | {"samples": self.samples, "seconds": seconds, "samples_per_second": samples / seconds}

    def checkpoint(self, data: Mapping[str, Any] | None = None) -> None:
        """Hand the state after the current step to the writer; nothing if that is already done.

        Args:
            data: the data cursor, where it is not the one after the batches drawn so far.
        """
        if self.store is None or self.step == self._saved:
            return
        self._saved = self.step
        assert self.batches is not None
        meta = {
            **self._meta,
            "step": self.step,
            "samples": self.samples,
            "updates": {name: e.updates for name, e in self.engines.items() if e.optimizer is not None},
            "data": dict(data or self.batches.state(self.backend.collectives)),
            "seed": self.config.seed,
            "lr_factor": self.lr_factor,
            "anomalies": self.guard.state(),
            "best": self.best,
            "world": self.backend.world,
        }
        state = entries(self.engines, self.state, self.backend.rank, self.backend.world)
        asynchronous = self.config.checkpoint.asynchronous
        self._patiently(partial(self.store.save, self.step, state, meta, asynchronous=asynchronous))
        for hook in self.hooks:
            hook.on_checkpoint(self, self.step)

    def _newest(self, store: CheckpointStore) -> int:
        """Step of the newest whole checkpoint that rank 0 finds, agreed on by all ranks; -1 where there is none.

        Raises:
            CheckpointError: there are checkpoints, but all are damaged: starting again would throw their work away.
        """
        step, error = -1, None
        with self.backend.patience.together():  # reading and hashing take time
            if self.backend.rank == 0:
                step, error = _find_newest(store)
        step = self.backend.agree(step)
        if step == -2:
            raise error.on_all_ranks() if error else PeerError("rank 0 could not read the checkpoints")
        return step

    def _resume(self) -> Mapping[str, Any] | None:
        """Load the newest whole checkpoint; returns the data cursor, None for a fresh start.

        Raises:
            CheckpointError: see `_newest`.
        """
        if self.store is None:
            return None
        step = self._newest(self.store)
        if step < 0:
            for hook in self.hooks:
                hook.on_rewind(self, 0)
            return None
        checkpoint = self.store.open(step)
        restore(checkpoint, self.engines, self.state)
        meta = checkpoint.meta
        self.step, self.samples, self.lr_factor = meta["step"], meta["samples"], meta["lr_factor"]
        self.guard.load(meta["anomalies"])
        self.best, self._saved = meta["best"], self.step
        if self.best is not None:
            self.store.protect(int(self.best["step"]))
        for hook in self.hooks:
            hook.on_rewind(self, self.step)
        data: Mapping[str, Any] = meta["data"]
        return data


def _find_newest(store: CheckpointStore) -> tuple[int, CheckpointError | None]:
    """Step of the newest whole checkpoint, or -1; -2 with an error where none can be used."""
    try:
        newest = store.newest()
        if newest is None and (damaged := store.complete_steps()):
            raise CheckpointError(
                f"all checkpoints in {store.folder} are damaged (steps {', '.join(map(str, damaged))})",
                expected="at least one whole checkpoint, or none at all",
                remedy="restore one from a copy, or remove the folder to start from the beginning",
            )
    except CheckpointError as error:
        return -2, error
    return (-1 if newest is None else newest.step), None


def _nothing() -> None:
    """No checkpoints, no errors."""
