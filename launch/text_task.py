"""What a text model's run consists of besides training: data, evaluation, samples."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generative.data.text import TextData, open_text
from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.catalogue import METHODS
from generative.training.hooks import Hook, Record
from generative.training.runfolder import atomic_write
from generative.training.trainer import Trainer
from launch.schema import RunConfig, TextSampling
from launch.text_evaluation import evaluate


def open_data(config: RunConfig, progress: Callable[[int, int], None] | None = None) -> TextData:
    """Training and held-out windows; tokenised first where that has not been done."""
    return open_text(config.data, progress=progress)


def build_method(config: RunConfig, facts: DataFacts) -> Any:
    """The method of a configuration, for data of these facts."""
    return METHODS[config.method.name].build(config.method, facts)


def steps(config: RunConfig, method: Any, facts: DataFacts) -> int:
    """train.steps, or what train.flops amounts to."""
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.flops is not None
    assert facts.sequence_length is not None
    count = int(method.steps_for_flops(config.train.flops, config.train.batch_size, facts.sequence_length))
    if count < 1:
        raise ConfigError(
            f"train.flops={config.train.flops:g} is less than one step of this model",
            expected="a budget of at least one step",
            remedy="raise train.flops or lower train.batch_size",
        )
    return count


def check_lengths(config: RunConfig, data: TextData) -> None:
    """Refuse contexts that the network cannot take."""
    longest = config.method.network.max_length
    asked = {"data.sequence_length": data.facts.sequence_length or 0, "sample.length": config.sample.length or 0}
    for key, length in asked.items():
        if length > longest:
            raise ConfigError(
                f"{key}={length} is longer than the model's context (method.network.max_length={longest})",
                expected=f"at most {longest}",
                remedy=f"lower {key}, or raise method.network.max_length",
            )
    if config.sample.length == 1 and data.tokenizer.eos_id is not None:
        raise ConfigError(
            "sample.length=1 leaves no room: a sample begins with the token that ends a document",
            expected="at least 2",
            remedy="raise sample.length, or set it to null for the training length",
        )


def facts_json(facts: DataFacts) -> dict[str, Any]:
    """For the checkpoint."""
    return dataclasses.asdict(facts)


# ---------------------------------------------------------------------- samples


def samples(
    settings: TextSampling,
    data: TextData,
    method: Any,
    nets: Mapping[str, nn.Module],
    device: torch.device,
    model: str,
    step: int,
    prompt: str | None = None,
    infill: str | None = None,
) -> dict[str, Any]:
    """The items of a samples file: texts from the model and infillings of held-out text, step by step.

    Args:
        prompt: text that every sample begins with.
        infill: text with one "▁" (U+2581) for each token to fill in; else parts of held-out text are masked.
    """
    from launch.text_samples import draw_infills, draw_samples

    if infill is not None and not hasattr(method, "mask_id"):
        raise ConfigError(
            f"the method of this run ({type(method).__name__}) writes from left to right and cannot fill gaps",
            expected="a masked diffusion model",
            remedy="leave out --infill and give the beginning with --prompt",
        )
    items = draw_samples(settings, data, method, nets, device, prompt) if infill is None else []
    if hasattr(method, "mask_id") and (infill is not None or settings.infill):
        items += draw_infills(settings, data, method, nets, device, infill)
    return {"time": time.time(), "step": step, "model": model, "items": items}


def describe_weights(trainer: Trainer, weights: str) -> str:
    """ "ema 0.99" or "trained"."""
    rates = [engine.emas[0].rate for engine in trainer.engines.values() if engine.emas]
    return f"ema {rates[0]}" if weights == "ema" and rates else "trained"


class SampleHook(Hook):
    """Draws samples every `train.sample_every` steps (rank 0 does)."""

    def __init__(self, config: RunConfig, data: TextData, run_dir: Path) -> None:
        self.config, self.data, self.run_dir = config, data, run_dir

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """Sample if it is due."""
        every = self.config.train.sample_every
        if every and trainer.step % every == 0:
            write_samples(self.config, self.data, trainer, self.run_dir)


def write_samples(config: RunConfig, data: TextData, trainer: Trainer, run_dir: Path) -> None:
    """samples/step_xxxxxx.json from the trainer's networks: drawn by rank 0, but all must call."""
    weights = config.sample.weights
    with trainer.evaluating(weights) as nets, trainer.backend.patience.together():
        if trainer.backend.rank != 0:
            return
        device = trainer.backend.device
        model = describe_weights(trainer, weights)
        drawn = samples(config.sample, data, trainer.method, nets, device, model, trainer.step)
        write_json(run_dir / "samples" / f"step_{trainer.step:06d}.json", drawn)


def finish(config: RunConfig, data: TextData, trainer: Trainer, run_dir: Path) -> None:
    """Evaluation (shared out over ranks) and samples after the last step."""
    if config.evaluate.at_end:
        weights = config.evaluate.weights
        with trainer.evaluating(weights) as nets:
            backend, model = trainer.backend, describe_weights(trainer, weights)
            figures = evaluate(
                config.evaluate, data, trainer.method, nets, backend.collectives, backend.device, model, trainer.step
            )
        if trainer.backend.rank == 0:
            write_json(run_dir / "evaluation.json", figures)
    if config.sample.at_end:
        write_samples(config, data, trainer, run_dir)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file, in a folder that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(value, ensure_ascii=False))
