"""What a run consists of besides training, for each kind of sample: text, images."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.method import Collectives, DataFacts
from generative.methods.catalogue import METHODS
from generative.training.hooks import Hook
from generative.training.trainer import Trainer

if TYPE_CHECKING:
    from generative.training.checkpoint import Checkpoint
    from launch.console import Console
    from launch.opened import Changes, OpenRun
    from launch.schema import RunConfig
    from launch.sections import LaunchConfig

Progress = Callable[[int, int], None]
"""Told what is done, and all."""


@dataclass(frozen=True)
class AskedSamples:
    """What `generative sample` asks for besides settings.

    Args:
        prompt: text that each sample begins with.
        infill: text with one "▁" for each token to fill in; gives infillings instead of samples.
    """

    prompt: str | None = None
    infill: str | None = None


def refuse_text(asked: AskedSamples, makes: str, instead: str) -> None:
    """For runs that take no text: refuse --prompt and --infill.

    Args:
        asked: what the command line asks for.
        makes: what such a run does, as "makes images".
        instead: how samples are chosen there.

    Raises:
        ConfigError: one of them is given.
    """
    for option, given in (("--prompt", asked.prompt), ("--infill", asked.infill)):
        if given is not None:
            raise ConfigError(f"{option} with a run that {makes}", "no text", f"leave out {option}; {instead}")


class Modality(Protocol):
    """A module `launch.<kind>_task`."""

    RECORD_KEYS: tuple[str, ...]
    """Settings of the section `evaluate` that tell one evaluation from another."""

    WHEN_ASKED: Mapping[str, Any]
    """Settings of a run that `generative sample` does not take over, and what stands in their place."""

    def open_data(self, config: RunConfig, progress: Progress | None = None) -> Any:
        """Samples to train on and held-out ones (train, validation, facts, description); prepared where they are not.

        Raises:
            DataError: missing or unsuitable data.
        """
        ...

    def prepare(self, config: RunConfig, workers: int | None, verify: bool, console: Console) -> Path | None:
        """Get data ready once (`generative data prepare`); the folder where they are, if there is one."""
        ...

    def known_facts(self, config: RunConfig) -> DataFacts:
        """What a plan must know of data that may not be there."""
        ...

    def describe(self, config: RunConfig) -> str:
        """The data in one line."""
        ...

    def check(self, config: RunConfig, data: Any) -> None:
        """Refuse settings that do not go with the data. Raises ConfigError, DataError."""
        ...

    def check_checkpoint(self, data: Any, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint that was trained on data of another nature. Raises CheckpointError."""
        ...

    def steps(self, config: RunConfig, method: Any, facts: DataFacts) -> int:
        """train.steps, or what train.flops amounts to."""
        ...

    def fake_batch(self, facts: DataFacts, size: int, global_batch: int) -> dict[str, Tensor]:
        """A micro-batch that costs what a real one does."""
        ...

    def hooks(self, config: RunConfig, data: Any, run_dir: Path) -> list[Hook]:
        """What watches a training: samples drawn on the way."""
        ...

    def finish(self, config: RunConfig, data: Any, trainer: Trainer, run_dir: Path) -> None:
        """Evaluation and samples after the last step; called on all ranks."""
        ...

    def draw(
        self,
        run: OpenRun,
        asked: AskedSamples,
        launch: LaunchConfig | None,
        changes: Changes,
        progress: Progress | None,
    ) -> dict[str, Any]:
        """What `generative sample` writes to <run>/samples/asked, drawn here or (with `launch`) by Ray workers."""
        ...

    def shown(self, drawn: Mapping[str, Any]) -> list[str]:
        """Samples as the terminal shows them."""
        ...

    def measure(
        self, run: OpenRun, launch: LaunchConfig | None, changes: Changes, progress: Progress | None
    ) -> dict[str, Any]:
        """What `generative evaluate` writes, measured here or (with `launch`) by Ray workers."""
        ...


def modality(config: RunConfig) -> Modality:
    """That of a configuration."""
    return cast("Modality", importlib.import_module(f"launch.{config.kind}_task"))


def build_method(config: RunConfig, facts: DataFacts) -> Any:
    """The method of a configuration, for data of these facts."""
    return METHODS[config.method.name].build(config.method, facts)


def budget_steps(config: RunConfig, affordable: Callable[[float], float]) -> int:
    """train.steps, or the steps that train.flops pays for, by the method's own count.

    Raises:
        ConfigError: a budget of less than one step.
    """
    if config.train.steps is not None:
        return int(config.train.steps)
    assert config.train.flops is not None
    count = int(affordable(config.train.flops))
    if count < 1:
        raise ConfigError(
            f"train.flops={config.train.flops:g} is less than one step of this model",
            expected="a budget of at least one step",
            remedy="raise train.flops or lower train.batch_size",
        )
    return count


def gathered(blob: bytes, collectives: Collectives, device: torch.device) -> list[bytes]:
    """The bytes of every rank, in their order, on all ranks."""
    mine = torch.frombuffer(bytearray(blob), dtype=torch.uint8).to(device)
    sizes = collectives.gather(torch.tensor([len(blob)], device=device))
    parts = torch.split(collectives.gather(mine).cpu(), sizes.tolist())
    return [part.numpy().tobytes() for part in parts]


def share(count: int, rank: int, world: int) -> range:
    """A rank's part of `count` items."""
    return range(rank * count // world, (rank + 1) * count // world)


def describe_weights(trainer: Trainer, weights: str) -> str:
    """ "ema 0.99" or "trained"."""
    rates = [engine.emas[0].rate for engine in trainer.engines.values() if engine.emas]
    return f"ema {rates[0]}" if weights == "ema" and rates else "trained"
