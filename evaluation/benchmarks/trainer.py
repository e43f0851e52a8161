"""What the trainer costs: against a loop written by hand, and when it writes checkpoints.

The network, its size, the windows of text and the optimizer are the same on both sides. The two loops run in one
process and one thread, a step of each in turn: after each step of the trainer a hook runs one of the bare loop.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.timing import grouped_ratio_of_medians, one_thread, synchronize, timed
from evaluation.estimate import mean_estimate, ratio_of_medians
from generative.data.config import BuiltinTextConfig
from generative.data.loader import Loader
from generative.data.text import TextData, open_text
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.nets.transformer_config import TransformerConfig
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.hooks import Hook, Record
from generative.training.monitor import MonitorHook
from generative.training.trainer import Trainer
from generative.training.validation import ValidationHook

WARMUP = 5
"""Steps of each kind that are left out: allocations, first use of the optimizer's state."""


NETWORK = TransformerConfig(layers=4, heads=4, width=256, ff_width=1024, max_length=64)


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        pairs: steps of each loop that are compared.
        step_seconds: the batch is doubled until a bare step takes at least this.
        checkpoints: how many are written, for their cost.
        interval: steps between them.
        network: sizes of the network.
        max_bytes: text to train on.
    """

    pairs: int = 240
    step_seconds: float = 0.06
    checkpoints: int = 16
    interval: int = 25
    network: TransformerConfig = NETWORK
    max_bytes: int = 1_000_000


QUICK = Settings(pairs=15, checkpoints=3, interval=8)


def run(quick: bool) -> dict[str, Figure]:
    """Overhead of the trainer, and the cost of asynchronous checkpoints."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        return measure(QUICK if quick else Settings(), Path(folder))


def measure(settings: Settings, folder: Path) -> dict[str, Figure]:
    """All figures; run folders and prepared text go into `folder`."""
    bench = Bench.prepare(settings, folder)
    return bench.overhead() | bench.checkpoints()


# ---------------------------------------------------------------------- the loop written by hand


class BareLoop:
    """Masked diffusion trained as a person would write it out in a script: no records, guards, cursors or streams.

    Args:
        net: the network, on its device.
        batches: windows int64[B, T + 1] of each step, in host memory.
        mask_id: id of the mask token.
        config: settings of the optimizer.
    """

    def __init__(self, net: nn.Module, batches: Sequence[Tensor], mask_id: int, config: TrainConfig) -> None:
        settings = config.optimizer
        self.net, self.mask_id, self.clip_norm = net.train(), mask_id, settings.clip_norm or float("inf")
        self.device = next(net.parameters()).device
        self.optimizer = torch.optim.AdamW(
            net.parameters(),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.losses: list[float] = []
        self._batches = itertools.cycle(batches)

    def step(self) -> None:
        """One optimizer step on the next batch."""
        ids = next(self._batches)[:, :-1].to(self.device)
        B, T = ids.shape
        t = (torch.rand((), device=self.device) + torch.arange(B, device=self.device) / B) % 1
        p = (1 - 1e-3) * t + 1e-3
        mask = torch.rand(B, T, device=self.device) < p[:, None]
        rows = mask.flatten().nonzero()[:, 0]
        total, _ = self.net(ids.masked_fill(mask, self.mask_id), rows, ids.flatten()[rows], (1 / p)[rows // T])
        loss = total / (B * T)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())


# ---------------------------------------------------------------------- hooks that measure


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

    def checkpoint(self, data: Mapping[str, Any] | None = None) -> None:
        """As the trainer's, timed."""
        start = time.perf_counter()
        super().checkpoint(data)
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


# ---------------------------------------------------------------------- the two measurements


@dataclass(frozen=True)
class Bench:
    """What both measurements share."""

    settings: Settings
    folder: Path
    data: TextData
    method: MaskedDiffusion
    backend: Backend
    batch_size: int

    @staticmethod
    def prepare(settings: Settings, folder: Path) -> Bench:
        """Tokenise the text and find the batch size."""
        length = settings.network.max_length
        text = BuiltinTextConfig(sequence_length=length, max_bytes=settings.max_bytes, cache=folder / "cache")
        data = open_text(text)
        method = MaskedDiffusion(MaskedDiffusionConfig(network=settings.network), data.facts)
        return Bench(settings, folder, data, method, Backend(threads=1), 2)._calibrated()

    def _calibrated(self) -> Bench:
        bench = self
        # The fastest of some steps: on a busy machine the median is longer than the step is.
        while min(bench._bare_seconds()) < self.settings.step_seconds:
            bench = Bench(**{**bench.__dict__, "batch_size": 2 * bench.batch_size})
        return bench

    def _bare_seconds(self) -> list[float]:
        net = self.method.networks()["net"].build().to(self.backend.device)
        loop = BareLoop(net, self.windows(4), self.method.mask_id, self.config(1))
        return [timed(loop.step, self.backend.device) for _ in range(WARMUP)][2:]

    def config(self, steps: int, every_steps: int | None = None) -> TrainConfig:
        """The trainer's settings: its defaults, a record each step."""
        return TrainConfig.model_validate(
            {"steps": steps, "batch_size": self.batch_size, "checkpoint": {"every_steps": every_steps}}
        )

    def loader(self, state: Mapping[str, Any] | None) -> Loader:
        """Batches in the trainer's order."""
        return Loader(self.data.train, batch_size=self.batch_size, seed=0, state=state)

    def windows(self, count: int) -> list[Tensor]:
        """The first so many batches, in memory."""
        return [share.micro_batches[0]["tokens"] for share in itertools.islice(self.loader(None), count)]

    def hooks(self, name: str) -> list[Hook]:
        """Those of a real run, which writes its metrics into a run folder."""
        folder = self.folder / name
        folder.mkdir()
        tokens = torch.from_numpy(np.zeros((self.batch_size, self.settings.network.max_length + 1), dtype=np.int64))
        flops = float(self.method.flops({"tokens": tokens}))
        monitor = MonitorHook(folder, batch_flops=flops, tokens_per_sample=self.settings.network.max_length)
        return [monitor, ValidationHook(TrainConfig(steps=1).validation, self.data.validation)]

    def protocol(self, step_seconds: float) -> str:
        """Sizes, for the figures."""
        size = self.settings.network
        return (
            f"masked diffusion, {size.layers} layers of width {size.width}, {self.batch_size} x {size.max_length} "
            f"tokens, one thread on {self.backend.device.type}, median step {1000 * step_seconds:.0f} ms"
        )

    def overhead(self) -> dict[str, Figure]:
        """Median step of the trainer over that of the bare loop, with metrics written to a run folder."""
        steps = self.settings.pairs + WARMUP
        config = self.config(steps)
        hooks = self.hooks("overhead")
        trainer = Trainer(self.method, config, steps, self.loader, self.backend, hooks=hooks)
        # The first batches again and again would stay in the cache: as many as there are steps.
        bare = BareLoop(copy.deepcopy(trainer.networks()["net"]), self.windows(steps), self.method.mask_id, config)
        turns = TakeTurns(bare.step, self.backend.device)
        trainer.hooks.append(turns)
        say(f"{steps} steps of the trainer and of a bare loop in turns, batches of {self.batch_size}")
        trainer.train()
        _finish(hooks)
        ours, theirs = np.array(turns.trainer_seconds[WARMUP:]), np.array(turns.other_seconds[WARMUP:])
        note = self.protocol(float(np.median(theirs[:, 0])))
        return {
            "overhead_ratio": figure(ratio_of_medians(ours[:, 0], theirs[:, 0]), "<= 1.03", note),
            # Not disturbed by other processes, but blind to waiting.
            "overhead_ratio_cpu_time": figure(ratio_of_medians(ours[:, 1], theirs[:, 1]), None, note),
        }

    def checkpoints(self) -> dict[str, Figure]:
        """How long asynchronous checkpoints hold up the training thread, and how much they slow it down."""
        interval = self.settings.interval
        steps = (self.settings.checkpoints + 1) * interval + 1
        hooks, clock = self.hooks("checkpoints"), StepClock()
        store = CheckpointStore(self.folder / "checkpoints" / "checkpoints", keep_last=2)
        config = self.config(steps, interval)
        trainer = StalledTrainer(self.method, config, steps, self.loader, self.backend, store, [*hooks, clock])
        say(f"{steps} steps, a checkpoint every {interval}")
        trainer.train()
        _finish(hooks)
        newest = store.newest(verify=False)
        assert newest is not None
        size = sum(file.stat().st_size for file in newest.path.iterdir()) / 1e6
        # The last two are left out: one has too few steps after it, and the end of training waits for the other.
        stalls = {step: seconds for step, seconds in trainer.stalls.items() if step + interval < steps}
        found = list(bouts(clock, stalls, interval))
        note = f"{size:.0f} MB every {interval} steps, {self.protocol(_median_step(found))}"
        fractions = mean_estimate([bout.fraction for bout in found], "", f"{note}; over checkpoints")
        slowdown = grouped_ratio_of_medians([(bout.writing, bout.idle) for bout in found])
        return {
            "checkpoint_stall_fraction": figure(fractions, "< 0.02"),
            "checkpoint_write_slowdown": figure(slowdown, None, note),
        }


def _median_step(found: Sequence[Bout]) -> float:
    return statistics.median(itertools.chain.from_iterable(bout.idle for bout in found))


def _finish(hooks: Sequence[Hook]) -> None:
    """End the heartbeat."""
    for hook in hooks:
        if isinstance(hook, MonitorHook):
            hook.finish(state="complete")
