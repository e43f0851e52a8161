"""What a text model's run consists of besides training: data, evaluation, samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from generative.data import facts, text_data
from generative.data.config import PairsTextConfig, ReversalTextConfig
from generative.data.prepare import prepare_text
from generative.data.reversal import prepare_reversal
from generative.data.text import TextData, open_text
from generative.errors import CheckpointError, ConfigError
from generative.method import Alone, DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.training.checkpoint import Checkpoint
from generative.training.hooks import Hook, Record
from generative.training.runfolder import write_json
from generative.training.trainer import Trainer
from launch.console import Console, bar_progress
from launch.modality import AskedSamples, Progress, budget_steps, build_method, describe_weights
from launch.opened import Changes, OpenRun
from launch.schema import RunConfig
from launch.sections import LaunchConfig, TextSampling
from launch.text_evaluation import evaluate

RECORD_KEYS = ("windows", "draws", "estimator", "weights")
WHEN_ASKED = {"sample.infill": 0}


def open_data(config: RunConfig, progress: Progress | None = None) -> TextData:
    """Training and held-out windows; tokenised first where that has not been done."""
    return open_text(config.data, progress=progress)


def prepare(config: RunConfig, workers: int | None, verify: bool, console: Console) -> Path | None:
    """Tokenise; the folder of token shards. Statements that are made are made once."""
    if isinstance(config.data, ReversalTextConfig):
        return prepare_reversal(config.data)
    progress = bar_progress(console, "data", "B")
    return prepare_text(config.data, workers=workers, progress=progress, verify=verify)


def known_facts(config: RunConfig) -> DataFacts:
    """Vocabulary and window length, as far as they are known without the text."""
    return facts.known_facts(config.data, config.method.network.vocab_size)


def describe(config: RunConfig) -> str:
    """Text, tokenizer and windows in one line."""
    return text_data.describe(config.data)


def steps(config: RunConfig, method: Any, facts: DataFacts) -> int:
    """train.steps, or what train.flops amounts to."""
    size, length = config.train.batch_size, facts.sequence_length
    return budget_steps(config, lambda flops: method.steps_for_flops(flops, size, length))


def check(config: RunConfig, data: TextData) -> None:
    """Refuse contexts that the network cannot take, settings without effect, and what would fail after training."""
    _check_prompts(config)
    _check_lengths(config, data)
    method = build_method(config, data.facts)
    _check_spans(config, data, method)
    if config.sample.at_end or config.train.sample_every:
        from launch.text_samples import check_samples

        check_samples(config.sample, data, method)


def _check_lengths(config: RunConfig, data: TextData) -> None:
    """Refuse contexts that the network cannot take, and samples without room."""
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


def _check_spans(config: RunConfig, data: TextData, method: Any) -> None:
    """Refuse windows in whose middle no span has text on both sides, where such spans are measured."""
    length, spans = data.facts.sequence_length or 0, hasattr(method, "span_likelihood")
    if length < 3 and spans and config.evaluate.at_end and not config.evaluate.only_likelihood:
        raise ConfigError(
            f"data.sequence_length={length}, but the evaluation fills in a span with text on both sides of it",
            expected="at least 3",
            remedy="raise data.sequence_length, or set evaluate.only_likelihood=true",
        )


def _check_prompts(config: RunConfig) -> None:
    """Refuse settings of masked diffusion that would have no effect on samples with prompts, or without."""
    method = config.method
    if not isinstance(method, MaskedDiffusionConfig):
        return
    prompts = isinstance(config.data, PairsTextConfig | ReversalTextConfig)
    if prompts and method.random_length_ratio > 0.0 and not method.answers.noise_prompts:
        raise ConfigError(
            f"method.random_length_ratio={method.random_length_ratio:g} with data.name={config.data.name}, whose "
            "responses are learned to their end",
            expected="method.random_length_ratio=0 where prompts are given",
            remedy="set method.random_length_ratio=0, or method.answers.noise_prompts=true",
        )
    answers = method.answers
    if not prompts and (answers.prompt_dropping > 0.0 or answers.normalisation != "tokens"):
        raise ConfigError(
            f"method.answers.prompt_dropping={answers.prompt_dropping:g} and normalisation={answers.normalisation} "
            f"with data.name={config.data.name}, which has no prompts",
            expected="data with prompts and responses",
            remedy="set data.name=pairs and data.path, or leave method.answers out",
        )


def check_checkpoint(data: TextData, checkpoint: Checkpoint) -> None:
    """The numbers of a model mean nothing under another tokenizer."""
    trained = checkpoint.meta.get("facts", {}).get("vocab_size")
    if trained != data.facts.vocab_size:
        raise CheckpointError(
            f"{checkpoint.path} was trained with {trained} tokens; the data has {data.facts.vocab_size} now",
            expected="the tokenizer that the run began with",
            remedy="restore the data (or data.cache) that the run was trained on",
        )


def fake_batch(facts: DataFacts, size: int, global_batch: int) -> dict[str, torch.Tensor]:
    """Windows without text, with places spread over the global batch so that their noise levels are typical."""
    ids = torch.arange(size)
    return {
        "tokens": torch.zeros(1, 1, dtype=torch.int64).expand(size, (facts.sequence_length or 0) + 1),
        "sample_id": ids,
        "position": ids * max(global_batch // size, 1),
        "valid": torch.ones(size, dtype=torch.bool),
    }


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
    from launch.text_samples import draw_infills, draw_texts

    items = draw_texts(settings, data, method, nets, device, prompt, infill)
    if infill is None and settings.infill and hasattr(method, "mask_id"):
        items += draw_infills(settings, data, method, nets, device)
    return {"time": time.time(), "step": step, "model": model, "items": items}


def hooks(config: RunConfig, data: TextData, run_dir: Path) -> list[Hook]:
    """Samples every `train.sample_every` steps."""
    return [SampleHook(config, data, run_dir)]


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
    weights, device = config.sample.weights, trainer.backend.device
    with trainer.evaluating(weights) as nets:

        def write() -> None:
            if trainer.backend.rank == 0:
                model = describe_weights(trainer, weights)
                drawn = samples(config.sample, data, trainer.method, nets, device, model, trainer.step)
                write_json(run_dir / "samples" / f"step_{trainer.step:06d}.json", drawn)

        trainer.patiently(write)


def finish(config: RunConfig, data: TextData, trainer: Trainer, run_dir: Path) -> None:
    """Evaluation (shared out over ranks) and samples after the last step."""
    if config.evaluate.at_end:
        weights = config.evaluate.weights
        with trainer.evaluating(weights) as nets:
            backend, model = trainer.backend, describe_weights(trainer, weights)
            figures = evaluate(
                config.evaluate,
                data,
                trainer.method,
                nets,
                backend.collectives,
                backend.device,
                model,
                trainer.step,
                meet=backend.patience.together,
            )
        if trainer.backend.rank == 0:
            write_json(run_dir / "evaluation.json", figures)
    if config.sample.at_end:
        write_samples(config, data, trainer, run_dir)


# ---------------------------------------------------------------------- a run that is opened again


def draw(
    run: OpenRun, asked: AskedSamples, launch: LaunchConfig | None, changes: Changes, progress: Progress | None
) -> dict[str, Any]:
    """Samples, or infillings of the text that is asked for (in this process)."""
    settings, step = run.config.sample, run.checkpoint.step
    _check_prompts(run.config)
    _check_lengths(run.config, run.data)
    if launch is None or asked.infill:
        nets, worn = run.networks(settings.weights)
        with torch.no_grad():
            return samples(settings, run.data, run.method, nets, run.device, worn, step, asked.prompt, asked.infill)
    from launch.text_actors import sample_with

    items = sample_with(run, launch, changes, asked.prompt, progress)
    return {"time": time.time(), "step": step, "model": run.worn(settings.weights), "items": items}


def shown(drawn: Mapping[str, Any]) -> list[str]:
    """Each text below its number."""
    weights = f"({drawn['model']} weights, step {drawn['step']})"
    items = enumerate(drawn["items"], start=1)
    return [f"{item['kind']} {number}  {weights}\n{item['text']}\n" for number, item in items]


def measure(run: OpenRun, launch: LaunchConfig | None, changes: Changes, progress: Progress | None) -> dict[str, Any]:
    """Figures of held-out windows."""
    if launch is not None:
        from launch.text_actors import evaluate_with

        return evaluate_with(run, launch, changes, progress)
    settings = run.config.evaluate
    nets, worn = run.networks(settings.weights)
    return evaluate(settings, run.data, run.method, nets, Alone(), run.device, worn, run.checkpoint.step, progress)
