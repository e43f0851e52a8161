"""What the trainer costs: against a loop written by hand, and when it writes checkpoints.

The network, its size, the windows of text and the optimizer are the same on both sides. The two loops run in one
process and one thread, a step of each in turn: after each step of the trainer a hook runs one of the bare loop.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmarks.bare_loop import BareLoop
from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.step_clock import Bout, StalledTrainer, StepClock, TakeTurns, bouts
from evaluation.benchmarks.timing import grouped_ratio_of_medians, one_thread, timed
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
from generative.training.hooks import Hook
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
        figures = {"checkpoint_stall_fraction": figure(fractions, "< 0.02")}
        both = [(bout.writing, bout.idle) for bout in found if bout.writing and bout.idle]
        if len(both) > 1:  # else every step, or none, fell into a write: there is nothing to compare
            figures["checkpoint_write_slowdown"] = figure(grouped_ratio_of_medians(both), None, note)
        return figures


def _median_step(found: Sequence[Bout]) -> float:
    """Between writes; where every step fell into one (a slow disk, tiny steps), of all steps."""
    idle = list(itertools.chain.from_iterable(bout.idle for bout in found))
    return statistics.median(idle or itertools.chain.from_iterable(bout.writing for bout in found))


def _finish(hooks: Sequence[Hook]) -> None:
    """End the heartbeat."""
    for hook in hooks:
        if isinstance(hook, MonitorHook):
            hook.finish(state="complete")
