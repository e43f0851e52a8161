"""A trained text model from wherever it lies: a run, one of its checkpoints, or an exported or imported folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evaluation.harness.jobs import Job
from evaluation.harness.scoring import answer
from evaluation.harness.tokens import Begin, TextModel
from generative.data.tokenizers import FILE, ByteTokenizer, Tokenizer, load_tokenizer
from generative.errors import ConfigError
from generative.hub.loading import load_exported
from generative.training.checkpoint import open_checkpoint
from generative.training.exported import CONFIG
from launch.opened import open_run, read_config, run_folder_of
from launch.ray_map import Progress, log_file, map_items, parts
from launch.sections import LaunchConfig

TEXT_METHODS = ("masked_diffusion", "autoregressive")

AT_ONCE = 8
"""Questions that a worker answers in one go at most; fewer are lost with a worker, and progress shows."""


@dataclass(frozen=True)
class Subject:
    """What is to be opened, here or by workers.

    Args:
        path: run, checkpoint, or folder that `generative export` or `import` wrote.
        changes: dotted keys under `method.` with new values.
        tokenizer: bytes, a folder with a tokenizer, or hub:OWNER/NAME; "": the model's own.
        weights: "trained" or "ema"; "": as the run's evaluation says. An exported folder has one set.
        begin: what stands before contexts.
    """

    path: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    weights: str = ""
    begin: Begin = "bos"

    @property
    def exported(self) -> bool:
        """Whether it is a folder of weights, not a run."""
        return (Path(self.path) / CONFIG).is_file()

    def open(self) -> TextModel:
        """The model, in eval mode.

        Raises:
            ConfigError, CheckpointError, DataError: no such model, of another kind, or without a tokenizer.
        """
        return _exported(self) if self.exported else _of_run(self)

    def about(self) -> dict[str, Any]:
        """What of it is written beside figures."""
        if self.exported:
            return {"model": "exported", "step": None}
        config = read_config(run_folder_of(self.path))
        return {
            "model": self.weights or config.evaluate.weights,
            "step": open_checkpoint(self.path, verify=False).step,
        }

    def launch(self) -> LaunchConfig:
        """How its run starts workers."""
        return LaunchConfig() if self.exported else read_config(run_folder_of(self.path)).launch

    def log(self) -> Path:
        """Where Ray and workers write: beside the run; of an exported folder, among the temporary files."""
        if self.exported:
            return Path(tempfile.gettempdir()) / f"generative-{os.getpid()}" / "ray_map.log"
        return log_file(run_folder_of(self.path))


def answers(
    jobs: Sequence[Job], subject: Subject, launch: LaunchConfig, guidance: float | None, progress: Progress | None
) -> list[Any]:
    """Of all jobs in their order, by workers or in this process.

    Args:
        jobs: what is asked.
        subject: who is asked; each worker opens it once.
        launch: the workers.
        guidance: that all jobs are to have, for which the model must have a mask token.
        progress: told the jobs that are done, and all.
    """
    if not jobs:
        return []
    items = [list(jobs[first:stop]) for first, stop in parts(len(jobs), launch.workers, AT_ONCE)]

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(sum(map(len, items[:done])), len(jobs))

    found: list[list[Any]] = map_items(items, partial(answerer, subject, guidance), launch, subject.log(), tell)
    return [one for part in found for one in part]


def answerer(subject: Subject, guidance: float | None) -> Callable[[list[Job]], list[Any]]:
    """Answers jobs with a model that is opened now; guidance that all tasks are to have must suit it."""
    model = subject.open()
    model.check_guidance(guidance)
    return lambda jobs: [answer(model, job) for job in jobs]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _of_run(subject: Subject) -> TextModel:
    check_method(subject.path, read_config(run_folder_of(subject.path)).method.name)
    run = open_run(subject.path, subject.changes)
    nets, _ = run.networks(subject.weights or run.config.evaluate.weights)
    tokenizer = open_named(subject.tokenizer) if subject.tokenizer else run.data.tokenizer
    return TextModel(run.method, nets, tokenizer, run.device, subject.begin)


def _exported(subject: Subject) -> TextModel:
    path = Path(subject.path)
    device = _device()
    changes = {key.removeprefix("method."): value for key, value in subject.changes.items()}
    loaded = load_exported(path, str(device), changes)
    method: Any = loaded.method
    check_method(subject.path, method.config.name)
    tokenizer = open_named(subject.tokenizer) if subject.tokenizer else _own(path)
    return TextModel(method, loaded.networks, tokenizer, device, subject.begin)


def _own(path: Path) -> Tokenizer:
    if (path / FILE).is_file():
        return load_tokenizer(path)
    if (path / "tokenizer.json").is_file():
        return open_named(str(path))
    raise ConfigError(
        f"{path} holds no tokenizer",
        "the tokenizer that the model was trained with",
        "give --tokenizer bytes, a folder with tokenizer.json, or hub:OWNER/NAME (of SMDM's weights: "
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T)",
    )


def open_named(name: str) -> Tokenizer:
    """The tokenizer `bytes`, of a folder, or of hub:OWNER/NAME; raises DataError where there is none."""
    if name == ByteTokenizer.name:
        return ByteTokenizer()
    if (Path(name) / FILE).is_file():
        return load_tokenizer(Path(name))
    from generative.data.huggingface import HuggingFaceTokenizer

    return HuggingFaceTokenizer.open(name)


def check_method(path: str, name: str) -> None:
    """Raise ConfigError if the method of the model at `path` is not one of text."""
    if name not in TEXT_METHODS:
        raise ConfigError(
            f"{path} is a model of {name}, which knows no text",
            f"a run, checkpoint or export of the methods {' or '.join(TEXT_METHODS)}",
            "`generative status runs` lists the runs there are",
        )
