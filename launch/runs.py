"""A finished (or stopped) run, opened again from its folder: for sampling and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generative.config import Layers, validate
from generative.data.text import TextData
from generative.errors import CheckpointError, ConfigError
from generative.method import Alone
from generative.training.checkpoint import Checkpoint, open_checkpoint
from generative.training.networks import checkpoint_weights, load_weights
from generative.training.precision import under_autocast
from launch import folder as run_folder
from launch import text_task
from launch.schema import RunConfig, TextEvaluation
from launch.text_evaluation import evaluate

RECORD = "evaluation.json"
"""The evaluation that stands for the run, in its folder."""


@dataclass(frozen=True)
class OpenRun:
    """A run's newest complete checkpoint with everything that belongs to it."""

    folder: Path
    config: RunConfig
    data: TextData
    method: Any
    checkpoint: Checkpoint
    device: torch.device

    def networks(self, weights: str) -> tuple[Mapping[str, nn.Module], str]:
        """The networks in eval mode, and the name of the weights that they wear ("ema 0.99" or "trained").

        They compute in the precision that the run was trained and evaluated in.
        """
        nets: dict[str, nn.Module] = {}
        worn = "trained"
        for name, spec in self.method.networks().items():
            rate = spec.ema[0] if weights == "ema" and spec.ema else None
            worn = f"ema {rate}" if rate is not None else worn
            module = spec.build()
            if spec.trainable:
                load_weights(module, checkpoint_weights(self.checkpoint, name, rate), str(self.checkpoint.path))
            nets[name] = under_autocast(module.to(self.device).eval(), self.config.train.precision, self.device)
        return nets, worn


def read_config(folder: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The resolved configuration of a run folder.

    Args:
        folder: the run folder.
        changes: dotted keys to set in it (None values are left as they are).

    Raises:
        ConfigError: the folder holds no run, or a change is not valid.
        RunFolderError: its config.yaml is damaged, or of another version.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not a run folder (it has no config.yaml)",
            expected="a folder that `generative train` has written",
            remedy="`generative status runs` lists the runs there are",
        )
    config = run_folder.validate(run_folder.read_layers(path), path)
    asked = {key: value for key, value in (changes or {}).items() if value is not None}
    return _changed(config, path, asked) if asked else config


def _changed(config: RunConfig, path: Path, changes: Mapping[str, Any]) -> RunConfig:
    layers = Layers()
    layers.merge(config.model_dump(mode="json"), str(path), {})
    for key, value in changes.items():
        section = layers.values
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        if last not in section:
            raise ConfigError(
                f"{key}: the method {config.method.name!r} has no such setting",
                expected=f"one of {', '.join(section)}",
                remedy="leave the option out",
            )
        nested = value
        for part in reversed((*parents, last)):
            nested = {part: nested}
        layers.merge(nested, "command line", {})
    return validate(layers, RunConfig)


def open_run(path: str | Path, changes: Mapping[str, Any] | None = None) -> OpenRun:
    """Open a run folder, or one of its checkpoint folders.

    Args:
        path: the run folder, or <run>/checkpoints/step_xxxxxx.
        changes: as for `read_config`.

    Raises:
        ConfigError, RunFolderError, CheckpointError, DataError: what is missing, damaged, or not a run.
    """
    path = Path(path)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    config = read_config(folder, changes)
    checkpoint = open_checkpoint(path)
    data = text_task.open_data(config)
    _same_tokens(data, checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return OpenRun(folder, config, data, text_task.build_method(config, data.facts), checkpoint, device)


def _same_tokens(data: TextData, checkpoint: Checkpoint) -> None:
    """The numbers of a model mean nothing under another tokenizer."""
    trained = checkpoint.meta.get("facts", {}).get("vocab_size")
    if trained != data.facts.vocab_size:
        raise CheckpointError(
            f"{checkpoint.path} was trained with {trained} tokens; the data has {data.facts.vocab_size} now",
            expected="the tokenizer that the run began with",
            remedy="restore the data (or data.cache) that the run was trained on",
        )


def sample_run(
    path: str | Path,
    *,
    prompt: str | None = None,
    infill: str | None = None,
    count: int | None = None,
    length: int | None = None,
    steps: int | None = None,
    temperature: float | None = None,
    order: str | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Draw from a run; the items of a samples file, which is also written to <run>/samples/asked/.

    Args:
        path: run folder or checkpoint folder.
        prompt: text that each sample begins with.
        infill: text with one "▁" for each token to fill in; gives infillings instead of samples.
        count, length, seed: as in the section `sample`.
        steps, temperature, order: as in `method.sampling` (order is its `name`).
    """
    run = open_run(
        path,
        {
            "sample.count": count,
            "sample.infill": 0,
            "sample.length": length,
            "sample.seed": seed,
            "method.sampling.steps": steps,
            "method.sampling.temperature": temperature,
            "method.sampling.name": order,
        },
    )
    settings = run.config.sample
    text_task.check_lengths(run.config, run.data)
    nets, worn = run.networks(settings.weights)
    with torch.no_grad():
        drawn = text_task.samples(
            settings, run.data, run.method, nets, run.device, worn, run.checkpoint.step, prompt, infill
        )
    text_task.write_json(run.folder / "samples" / "asked" / f"step_{run.checkpoint.step:06d}.json", drawn)
    return drawn


def evaluate_run(
    path: str | Path,
    *,
    windows: int | None = None,
    draws: int | None = None,
    weights: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_written: Callable[[Path], object] = lambda path: None,
) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, or the one given; returns what is written into the run folder.

    The newest checkpoint with the run's own settings gives evaluation.json and a new report. Anything else goes to
    evaluations/, named by step and settings, so that the run's record stays as it is.

    Args:
        path: run folder or checkpoint folder.
        windows, draws, weights: as in the section `evaluate`.
        progress: told the windows that are done, and all.
        on_written: told the file.
    """
    changes = {"evaluate.windows": windows, "evaluate.draws": draws, "evaluate.weights": weights}
    run = open_run(path, changes)
    settings = run.config.evaluate
    nets, worn = run.networks(settings.weights)
    step = run.checkpoint.step
    figures = evaluate(settings, run.data, run.method, nets, Alone(), run.device, worn, step, progress)
    place = run.folder / _record_name(run, read_config(run.folder).evaluate)
    text_task.write_json(place, figures)
    on_written(place)
    if place.name == RECORD:
        from evaluation.report import write_report

        write_report(run.folder)
    return figures


def _record_name(run: OpenRun, own: TextEvaluation) -> str:
    """Where an evaluation goes: `RECORD`, or evaluations/step_000040_windows_4.json for another step or settings."""
    asked = run.config.evaluate
    keys = [key for key in ("windows", "draws", "weights") if getattr(asked, key) != getattr(own, key)]
    differing = [f"{key}_{getattr(asked, key)}" for key in keys]
    newest = open_checkpoint(run.folder, verify=False).step
    if not differing and run.checkpoint.step == newest:
        return RECORD
    return f"evaluations/{'_'.join([f'step_{run.checkpoint.step:06d}', *differing])}.json"
