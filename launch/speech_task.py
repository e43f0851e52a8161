"""What a run that enhances speech consists of besides training: data, evaluation, sounds. See `launch.modality`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.data.speech import SpeechData, check_speech_batch, known_speech_facts, open_speech, prepare_speech
from generative.data.speech_config import MadeSpeechConfig
from generative.errors import CheckpointError, ConfigError
from generative.method import DataFacts
from generative.methods.sgmse.sampling import sampler_text, span_of
from generative.training.checkpoint import Checkpoint
from generative.training.hooks import Hook, Record
from generative.training.runfolder import write_json
from generative.training.trainer import Trainer
from launch.console import Console, bar_progress
from launch.modality import Progress, budget_steps, build_method, describe_weights, gathered, share
from launch.schema import RunConfig
from launch.speech_evaluation import Part, Subject, check_figures, enhancer_of, measured, numbers_of, record
from launch.speech_opened import draw, measure, shown
from launch.speech_samples import listen

__all__ = [
    "RECORD_KEYS",
    "WHEN_ASKED",
    "check",
    "check_checkpoint",
    "describe",
    "draw",
    "fake_batch",
    "finish",
    "hooks",
    "known_facts",
    "measure",
    "open_data",
    "prepare",
    "shown",
    "steps",
]

RECORD_KEYS = ("part", "files", "metrics", "seed", "weights")
WHEN_ASKED: Mapping[str, Any] = {}


def open_data(config: RunConfig, progress: Progress | None = None) -> SpeechData:
    """Training and held-out speech; files are read into a cache first where that has not been done."""
    return open_speech(config.data, progress=progress)


def prepare(config: RunConfig, workers: int | None, verify: bool, console: Console) -> Path | None:
    """Read files into a cache; its folder, or None for speech that is made as it is needed."""
    if isinstance(config.data, MadeSpeechConfig):
        return None
    return prepare_speech(config.data, progress=bar_progress(console, "data"), verify=verify)


def known_facts(config: RunConfig) -> DataFacts:
    """The length of a crop."""
    return known_speech_facts(config.data)


def describe(config: RunConfig) -> str:
    """The source in a few words."""
    where = next(filter(None, (getattr(config.data, key, None) for key in ("path", "speech", "wsj0"))), "")
    return " ".join(filter(None, [config.data.name.replace("_", " "), "speech", str(where)]))


def check(config: RunConfig, data: SpeechData) -> None:
    """Refuse batches larger than the data, another rate than the method's, figures that cannot be had, and times
    that the sampler cannot go through."""
    check_speech_batch(data, config.train.batch_size)
    if data.sample_rate != config.method.sample_rate:
        raise ConfigError(
            f"data.sample_rate={data.sample_rate} with method.sample_rate={config.method.sample_rate}",
            "one rate",
            f"set data.sample_rate={config.method.sample_rate} (and data.resample=true where files are of another)",
        )
    check_figures(config.evaluate, data.sample_rate)
    build_method(config, data.facts)
    if config.evaluate.at_end or config.sample.at_end or config.train.sample_every:
        span_of(config.method)


def check_checkpoint(data: SpeechData, checkpoint: Checkpoint) -> None:
    """A network was trained at one rate; lengths of crops may differ."""
    trained = checkpoint.meta.get("facts", {}).get("sample_rate")
    if trained is not None and trained != data.sample_rate:
        raise CheckpointError(
            f"{checkpoint.path} was trained on speech at {trained} Hz; now it is {data.sample_rate} Hz",
            expected="the data that the run began with",
            remedy="restore the data that the run was trained on",
        )


def steps(config: RunConfig, method: Any, facts: DataFacts) -> int:
    """train.steps, or as many as train.flops pays for."""
    size = config.train.batch_size
    return budget_steps(config, lambda flops: flops / method.flops(fake_batch(facts, size, size)))


def fake_batch(facts: DataFacts, size: int, global_batch: int) -> dict[str, Tensor]:
    """Silence of the right length."""
    ids = torch.arange(size)
    wave = torch.zeros(1, 1).expand(size, *(facts.sample_shape or ()))
    valid = torch.ones(size, dtype=torch.bool)
    return {"clean": wave, "noisy": wave, "sample_id": ids, "position": ids, "valid": valid}


def hooks(config: RunConfig, data: SpeechData, run_dir: Path) -> list[Hook]:
    """Sounds every `train.sample_every` steps."""
    return [SoundHook(config, data, run_dir)]


class SoundHook(Hook):
    """Enhances some utterances every `train.sample_every` steps (rank 0 does)."""

    def __init__(self, config: RunConfig, data: SpeechData, run_dir: Path) -> None:
        self.config, self.data, self.run_dir = config, data, run_dir

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """Enhance if it is due."""
        every = self.config.train.sample_every
        if every and trainer.step % every == 0 and trainer.step < trainer.steps:
            write_samples(self.config, self.data, trainer, self.run_dir)


def write_samples(config: RunConfig, data: SpeechData, trainer: Trainer, run_dir: Path) -> None:
    """samples/step_xxxxxx*.{json,wav,png} from the trainer's networks: made by rank 0, but all must call."""
    weights = config.sample.weights
    with trainer.evaluating(weights) as nets:

        def write() -> None:
            if trainer.backend.rank == 0:
                enhancer = enhancer_of(trainer.method, nets)
                model = describe_weights(trainer, weights)
                found = listen(config.sample, "validation", data, enhancer, model, trainer.step)
                found.write(run_dir / "samples")
                write_json(run_dir / "samples" / f"step_{trainer.step:06d}.json", found.record)
                trainer.measured(found.figures)

        trainer.patiently(write)


def finish(config: RunConfig, data: SpeechData, trainer: Trainer, run_dir: Path) -> None:
    """Evaluation (utterances shared out over ranks) and sounds after the last step."""
    if config.evaluate.at_end:
        settings, backend = config.evaluate, trainer.backend
        with trainer.evaluating(settings.weights) as nets, backend.patience.together():
            subject = Subject(settings, data, enhancer_of(trainer.method, nets, settings.batch_size))
            numbers = numbers_of(settings, data)
            mine = [numbers[place] for place in share(len(numbers), backend.rank, backend.world)]
            part = measured(subject, mine, settings.scorers)
        blobs = gathered(json.dumps(part.to_json()).encode(), backend.collectives, backend.device)
        if backend.rank == 0:
            whole = reduce(Part.merge, (Part.from_json(json.loads(blob)) for blob in blobs))
            sampler, model = sampler_text(config.method), describe_weights(trainer, settings.weights)
            write_json(run_dir / "evaluation.json", record(data, whole, sampler, model, trainer.step))
    if config.sample.at_end:
        write_samples(config, data, trainer, run_dir)
