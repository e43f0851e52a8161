"""The only loop that trains networks."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from generative.errors import AnomalyError, CheckpointError, GenerativeError, PeerError
from generative.method import Mean, Method, Update
from generative.training import means
from generative.training.anomaly import AnomalyGuard
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.engines import Engine
from generative.training.engines.gather import whole_copy
from generative.training.hooks import Hook, Record
from generative.training.networks import build_engines
from generative.training.precision import under_autocast
from generative.training.starts import SOURCES, pinned_sources
from generative.training.state import entries, restore
from generative.training.update import Share, Updater

State = Literal["complete", "interrupted"]

LAST_SAVE_SECONDS = 60.0
"""How long a checkpoint under way may take to become complete after an error."""


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
        self.sources = pinned_sources(store.folder) if store is not None else None
        """Where networks that start from checkpoints came from: exact steps, kept over all restarts."""
        copies = store.folder / SOURCES if store is not None else None
        self.engines, self.sources = build_engines(method, config, steps, backend, self.sources, copies)
        self.state: dict[str, Tensor] = {k: v.to(backend.device) for k, v in method.state().items()}
        self._updater = Updater(method, self.engines, backend, config.seed, config.batch_size)
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
        try:
            return self._train()
        except BaseException:
            if self.store is not None:
                self.store.close(LAST_SAVE_SECONDS)
            raise

    def _train(self) -> State:
        self.batches = self._open_batches(self._resume())
        self.patiently(partial(self._each_hook, lambda hook: hook.on_start(self)))
        if self.step == 0:
            self._since = (time.perf_counter(), self.samples)
        if self.config.anomaly.policy == "rollback" and self.store and not self.store.complete_steps():
            self.checkpoint()
        while self.step < self.steps:
            if self._told_to_stop():
                return self._end("interrupted")
            if self._cycle():
                self._after_step()
        return self._end("complete")

    def _each_hook(self, call: Callable[[Hook], None]) -> None:
        for hook in self.hooks:
            call(hook)

    def _end(self, state: State) -> State:
        if self.store is not None:
            self.checkpoint()
            self._settle()
        self.patiently(partial(self._each_hook, lambda hook: hook.on_end(self, state)))
        return state

    def _told_to_stop(self) -> bool:
        """Whether any rank was told to stop; an error of any rank's checkpoint writer is raised on all ranks."""
        return self._together(self._stop(), self.store.poll if self.store is not None else _nothing)

    def _settle(self) -> None:
        """Wait until the last checkpoint is complete; an error of any rank is raised on all."""
        if self.store is not None:
            self.patiently(self.store.wait)

    def patiently(self, action: Callable[[], None]) -> None:
        """Run `action` on every rank, however long it takes on some (a slow disk, samples that rank 0 draws alone).

        An error of any rank is raised on all. Inside, no collective.
        """

        def all_of_it() -> None:
            with self.backend.patience.together():
                action()

        self._together(False, all_of_it)

    def _together(self, stop: bool, action: Callable[[], None]) -> bool:
        """Run `action` on every rank, then agree on whether it failed anywhere and whether anyone wants to stop."""
        error: Exception | None = None
        try:
            action()
        except Exception as raised:
            error = raised
        anyone, failed = stop, error is not None
        if self.backend.world > 1:
            flags = torch.tensor([float(anyone), float(failed)], device=self.backend.device)
            anyone, failed = (bool(flag) for flag in self.backend.collectives.sum(flags).tolist())
        if failed:
            raise _agreed(error) if error else PeerError("another worker met an error, which it reports itself")
        return anyone

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
                ema.update(self.step + 1)
        return True

    def _next_share(self) -> Share:
        assert self.batches is not None
        share = next(self.batches)
        self.samples += self.config.batch_size
        return share

    def _update(self, update: Update, repeat: int, share: Share) -> bool:
        """One optimizer step, or what the anomaly policy does instead; False after a rollback."""
        taken = self._updater.take(
            update, repeat, share, self.step, self.state, self.guard.verdict, lr_factor=self.lr_factor
        )
        if taken.problem is not None:
            return self._anomaly(update, taken.problem)
        self._lr[update.name] = taken.lr
        self.state.update(taken.new_state)
        means.add(self._pending, {f"{update.name}\n{name}": mean for name, mean in taken.means.items()})
        return True

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
            begins = "the state before it is saved" if self._save_state_before() else "from the newest checkpoint on"
            raise AnomalyError(
                f"{problem} at {where}",
                expected="finite losses and gradients" if "sigma" not in problem else "a loss near its recent mean",
                remedy=f"give the same command again to replay exactly this step ({begins}); add "
                "train.anomaly.policy=skip (or rollback) to get past it; for another learning rate start a new run",
            ).on_all_ranks()
        if policy == "skip":
            return True
        self._rollback()
        return False

    def _save_state_before(self) -> bool:
        """Checkpoint of the state before this step, so that the same command replays it; whether there is one.

        Left out where an earlier update of the step has changed a network already: then the replay begins at the newest
        checkpoint, which is just as exact.
        """
        samples, data, updates = self._before
        if self.store is None or updates != self._updates_taken():
            return False
        self.samples = samples
        self.checkpoint(data)
        self._settle()
        return True

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

    def measured(self, metrics: Mapping[str, float]) -> None:
        """Tell the hooks what a watcher has measured of samples drawn at this step, by name.

        No collective: rank 0, whose measurements are kept, may call it alone.
        """
        record: Record = {"kind": "monitor", "step": self.step, "time": time.time(), "metrics": dict(metrics)}
        for hook in self.hooks:
            hook.on_measurement(self, record)

    def validated(self, loss: float) -> None:
        """Keep the checkpoint of this step if its validation loss is the lowest so far."""
        if self.store is None or not self.config.checkpoint.keep_best:
            return
        if not math.isfinite(loss):
            return
        if self.best is None or loss < self.best["loss"]:
            self.best = {"step": self.step, "loss": loss}
            self.checkpoint(label="best")

    def networks(self) -> dict[str, torch.nn.Module]:
        """The bare networks by name."""
        return {name: engine.module for name, engine in self.engines.items()}

    @contextlib.contextmanager
    def evaluating(self, weights: str = "trained", *, whole: bool = True) -> Iterator[dict[str, Any]]:
        """The networks in eval mode without gradients; weights="ema": those that have averages wear the first one.

        All ranks must enter together.

        Args:
            whole: networks that a rank can call on its own, as often as it likes; those whose weights are spread over
                the ranks are gathered into copies. False spares the copies, but all ranks must then call each network
                equally often.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for engine in self.engines.values():
                engine.module.eval()
                if weights == "ema" and engine.emas:
                    stack.enter_context(engine.emas[0].applied())
            yield {name: self._evaluated(engine, whole) for name, engine in self.engines.items()}

    def _evaluated(self, engine: Engine, whole: bool) -> Any:
        if not (engine.gathers and whole):
            return engine.watched()
        backend, build = self.backend, self.method.networks()[engine.name].build
        copy = whole_copy(engine, build, backend.collectives, backend.device)
        return under_autocast(copy, backend.precision, backend.device)

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

    def checkpoint(self, data: Mapping[str, Any] | None = None, label: str | None = None) -> None:
        """Hand the state after the current step to the writer; nothing if that is already done.

        Args:
            data: the data cursor, where it is not the one after the batches drawn so far.
            label: protects it from rotation ("best").
        """
        if self.store is None:
            return
        if self.step == self._saved:
            if label is not None:
                self._settle()
                self.patiently(partial(self.store.protect, self.step, label))
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
            "strategy": self.backend.strategy,
            "sources": self.sources,
            "unlogged": self._unlogged(),
        }
        state = entries(self.engines, self.state, self.backend.rank, self.backend.world)
        asynchronous = self.config.checkpoint.asynchronous
        self.patiently(partial(self.store.save, self.step, state, meta, asynchronous, label))
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
            self._rewind_hooks()
            return None
        meta = self._restore(self.store, step)
        self.step, self.samples, self.lr_factor = meta["step"], meta["samples"], meta["lr_factor"]
        self.guard.load(meta["anomalies"])
        self.best, self._saved = meta["best"], self.step
        self._load_unlogged(meta["unlogged"])
        self._rewind_hooks()
        data: Mapping[str, Any] = meta["data"]
        return data

    def _rewind_hooks(self) -> None:
        self.patiently(partial(self._each_hook, lambda hook: hook.on_rewind(self, self.step)))

    def _restore(self, store: CheckpointStore, step: int) -> Mapping[str, Any]:
        """Fill everything from a checkpoint, each rank its part; its meta. An error of any rank is raised on all."""
        meta: dict[str, Any] = {}

        def fill() -> None:
            checkpoint = store.open(step)
            restore(checkpoint, self.engines, self.state)
            checkpoint.close()
            meta.update(checkpoint.meta)
            best = meta["best"]
            if best is not None and best["step"] in store.complete_steps():
                store.protect(int(best["step"]))

        self.patiently(fill)
        for name, engine in self.engines.items():
            if engine.optimizer is not None:
                engine.resume(int(meta["updates"][name]))
        return meta

    def _unlogged(self) -> dict[str, Any]:
        """What has been summed up since the last record, for the checkpoint."""
        sums = {key: [mean.total.tolist(), mean.count.tolist()] for key, mean in self._pending.items()}
        return {
            "means": sums,
            "lr": self._lr,
            "seconds": time.perf_counter() - self._since[0],
            "samples": self._since[1],
        }

    def _load_unlogged(self, kept: Mapping[str, Any]) -> None:
        pairs = {key: [torch.tensor(part, dtype=torch.float64) for part in sums] for key, sums in kept["means"].items()}
        self._pending = {key: Mean(*pair) for key, pair in pairs.items()}
        self._lr = dict(kept["lr"])
        self._since = (time.perf_counter() - kept["seconds"], kept["samples"])


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


def _agreed(error: Exception) -> Exception:
    """The error of this rank, which all ranks end with."""
    return error.on_all_ranks() if isinstance(error, GenerativeError) else error


def _nothing() -> None:
    """No checkpoints, no errors."""
