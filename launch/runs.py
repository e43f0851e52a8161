"""A finished (or stopped) run, opened again from its folder: for sampling and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from generative.data.text import TextData
from generative.errors import CheckpointError, ConfigError
from generative.method import Alone
from generative.training.checkpoint import Checkpoint, open_checkpoint
from generative.training.networks import checkpoint_weights, load_weights
from launch import text_task
from launch.schema import RunConfig
from launch.text_evaluation import evaluate


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
        """The networks in eval mode, and the name of the weights that they wear ("ema 0.99" or "trained")."""
        nets: dict[str, nn.Module] = {}
        worn = "trained"
        for name, spec in self.method.networks().items():
            rate = spec.ema[0] if weights == "ema" and spec.ema else None
            worn = f"ema {rate}" if rate is not None else worn
            module = spec.build()
            if spec.trainable:
                load_weights(module, checkpoint_weights(self.checkpoint, name, rate), str(self.checkpoint.path))
            nets[name] = module.to(self.device).eval()
        return nets, worn


def read_config(folder: Path) -> RunConfig:
    """The resolved configuration of a run folder.

    Raises:
        ConfigError: the folder holds no run.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder} is not a run folder (it has no config.yaml)",
            expected="a folder that `generative train` has written",
            remedy="`generative status runs` lists the runs there are",
        )
    return RunConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def open_run(path: str | Path, changes: Mapping[str, Any] | None = None) -> OpenRun:
    """Open a run folder, or one of its checkpoint folders.

    Args:
        path: the run folder, or <run>/checkpoints/step_xxxxxx.
        changes: dotted keys to set in its configuration (None values are left as they are).

    Raises:
        ConfigError, CheckpointError, DataError: what is missing, damaged, or not a run.
    """
    path = Path(path)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    config = _changed(read_config(folder), changes or {})
    checkpoint = open_checkpoint(path)
    data = text_task.open_data(config)
    _same_tokens(data, checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return OpenRun(folder, config, data, text_task.build_method(config, data.facts), checkpoint, device)


def _changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    values = config.model_dump(mode="json")
    for key, value in changes.items():
        if value is None:
            continue
        section = values
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        if last not in section:
            raise ConfigError(
                f"{key}: the method {values['method']['name']!r} has no such setting",
                expected=f"one of {', '.join(section)}",
                remedy="leave the option out",
            )
        section[last] = value
    return RunConfig.model_validate(values)


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
    """Draw from a run; the items of a samples file, which is also written into the run folder.

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
    text_task.write_json(run.folder / "samples" / f"step_{run.checkpoint.step:06d}_asked.json", drawn)
    return drawn


def evaluate_run(
    path: str | Path,
    *,
    windows: int | None = None,
    draws: int | None = None,
    weights: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint; writes evaluation.json into the run folder and returns it.

    Args:
        path: run folder or checkpoint folder.
        windows, draws, weights: as in the section `evaluate`.
        progress: told the windows that are done, and all.
    """
    changes = {"evaluate.windows": windows, "evaluate.draws": draws, "evaluate.weights": weights}
    run = open_run(path, changes)
    settings = run.config.evaluate
    nets, worn = run.networks(settings.weights)
    step = run.checkpoint.step
    figures = evaluate(settings, run.data, run.method, nets, Alone(), run.device, worn, step, progress)
    text_task.write_json(run.folder / "evaluation.json", figures)
    return figures
