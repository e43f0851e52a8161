"""What an image model's run consists of besides training: data, evaluation, samples. See `launch.modality`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from evaluation.image_monitor import alarms
from generative.data.captioned_config import CaptionedConfig
from generative.data.captioned_prepare import prepare_captions
from generative.data.image_config import FolderImageConfig, HubImageConfig
from generative.data.image_facts import known_image_facts
from generative.data.image_prepare import prepare_images
from generative.data.images import ImageData, check_batch, open_images
from generative.errors import CheckpointError, ConfigError
from generative.method import Collectives, DataFacts
from generative.methods.f_distill.network import parts_of
from generative.training.checkpoint import Checkpoint
from generative.training.hooks import Hook, Record
from generative.training.runfolder import write_json
from generative.training.trainer import Trainer
from launch.caption_checks import check_captions, check_size
from launch.console import Console, bar_progress
from launch.image_checks import (
    check_classes,
    check_counts,
    check_figures,
    check_following,
    check_labels,
    check_reference,
    check_weights,
)
from launch.image_evaluation import (
    STREAMS,
    Part,
    Subject,
    companion_of,
    open_extractor,
    reference_of,
    reference_scorer,
    sampler_of,
    scorer,
    subject_of,
    summary,
)
from launch.image_opened import draw, measure, shown
from launch.image_samples import look, sample_streams
from launch.modality import Progress, budget_steps, build_method, describe_weights, gathered, share
from launch.reconstructions import check_originals, kind_of_samples
from launch.schema import RunConfig

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

RECORD_KEYS = (
    *("samples", "reference", "reference_samples", "extractor", "extractor_weights", "extractor_revision"),
    *("metrics", "neighbours", "features", "weights"),
)
WHEN_ASKED: Mapping[str, Any] = {}


def open_data(config: RunConfig, progress: Progress | None = None) -> ImageData:
    """Training and held-out images (or points); decoded first where that has not been done."""
    check_size(config)
    return open_images(config.data, progress=progress)


def prepare(config: RunConfig, workers: int | None, verify: bool, console: Console) -> Path | None:
    """Decode into a cache; its folder, or None for samples that are made as they are needed."""
    if isinstance(config.data, CaptionedConfig):
        return prepare_captions(config.data, progress=bar_progress(console, "data"), verify=verify)
    if not isinstance(config.data, FolderImageConfig | HubImageConfig):
        return None
    return prepare_images(config.data, progress=bar_progress(console, "data"), verify=verify)


def known_facts(config: RunConfig) -> DataFacts:
    """The shape of a sample, and classes, which the method may name before the data are there."""
    if isinstance(config.data, CaptionedConfig):
        parts = parts_of(config.method, DataFacts())
        return DataFacts(sample_shape=parts.shape, text_shape=parts.text_shape)
    facts = known_image_facts(config.data)
    return facts if facts.classes else replace(facts, classes=getattr(config.method, "classes", None) or None)


def describe(config: RunConfig) -> str:
    """The source in a few words."""
    captions = getattr(config.data, "captions", None) or getattr(config.data, "images", None)
    where = (
        captions
        or getattr(config.data, "id", None)
        or getattr(config.data, "path", None)
        or getattr(config.data, "kind", "")
    )
    return " ".join(filter(None, [config.data.name.replace("_", " "), str(where)]))


def check(config: RunConfig, data: ImageData) -> None:
    """Refuse batches larger than the data, unknown metrics, and extractors whose weights are missing."""
    check_batch(data, config.train.batch_size)
    check_figures(config, data)
    check_weights(config)
    check_labels(config)
    check_classes(config, data)
    check_following(config, data)
    method = build_method(config, data.facts)
    check_captions(config, data, method)
    coupled = all(update.coupled for update in method.updates())
    if config.train.validation.every_steps and coupled:
        raise ConfigError(
            f"train.validation.every_steps={config.train.validation.every_steps}, but the losses of "
            f"{config.method.name} mean nothing on held-out samples",
            expected="null",
            remedy="set train.validation.every_steps=null; train.sample_every watches the samples instead",
        )
    measured = bool(config.evaluate.at_end or config.evaluate.every_steps)
    if measured or config.sample.at_end or config.train.sample_every:
        check_originals(method, data, config.evaluate, measured)
    if config.evaluate.at_end and data.kind == "image":
        check_reference(config, data)
        check_counts(config, data, config.evaluate.metrics)
        if config.evaluate.extractor != "small":
            open_extractor(config.evaluate, config.data.name, data, torch.device("cpu"), Path())


def check_checkpoint(data: ImageData, checkpoint: Checkpoint) -> None:
    """A network fits images of one shape only."""
    trained = checkpoint.meta.get("facts", {}).get("sample_shape")
    if trained is not None and tuple(trained) != data.facts.sample_shape:
        raise CheckpointError(
            f"{checkpoint.path} was trained on samples of shape {tuple(trained)}; now it is {data.facts.sample_shape}",
            expected="the data that the run began with",
            remedy="restore the data (or data.cache) that the run was trained on",
        )


def steps(config: RunConfig, method: Any, facts: DataFacts) -> int:
    """train.steps, or as many as train.flops pays for by the method's own count."""
    size = config.train.batch_size
    return budget_steps(config, lambda flops: flops / method.flops(fake_batch(facts, size, size)))


def fake_batch(facts: DataFacts, size: int, global_batch: int) -> dict[str, Tensor]:
    """Empty samples of the right shape."""
    ids = torch.arange(size)
    shape = facts.sample_shape or ()
    sample = torch.zeros(1, *([1] * len(shape))).expand(size, *shape)
    labels = {} if facts.classes is None else {"label": torch.zeros_like(ids)}
    texts = {} if facts.text_shape is None else {"text": torch.zeros(1, 1, 1).expand(size, *facts.text_shape).half()}
    return {
        "sample": sample,
        **labels,
        **texts,
        "sample_id": ids,
        "position": ids,
        "valid": torch.ones(size, dtype=torch.bool),
    }


# ---------------------------------------------------------------------- samples


def hooks(config: RunConfig, data: ImageData, run_dir: Path) -> list[Hook]:
    """Pictures every `train.sample_every` steps, and the watch over modes; figures along the training."""
    from launch.following import LocalHook

    return [PictureHook(config, data, run_dir), *([LocalHook(config, run_dir)] if LocalHook.wanted(config) else [])]


class PictureHook(Hook):
    """Draws samples every `train.sample_every` steps (rank 0 does), and warns of lost modes and copies.

    A warning is given when it becomes true, not each time that it still is.
    """

    def __init__(self, config: RunConfig, data: ImageData, run_dir: Path) -> None:
        self.config, self.data, self.run_dir = config, data, run_dir
        self._warned = False

    def on_step(self, trainer: Trainer, record: Record | None) -> None:
        """Sample if it is due."""
        every = self.config.train.sample_every
        if every and trainer.step % every == 0 and trainer.step < trainer.steps:
            told = write_samples(self.config, self.data, trainer, self.run_dir)
            for warning in told if not self._warned else ():
                trainer.event("warning", warning)
            self._warned = bool(told)


def write_samples(config: RunConfig, data: ImageData, trainer: Trainer, run_dir: Path) -> list[str]:
    """samples/step_xxxxxx.{json,png} from the trainer's networks: drawn by rank 0, but all must call.

    Returns:
        what is wrong with the samples, a line each; on other ranks nothing.
    """
    weights, device = config.sample.weights, trainer.backend.device
    told: list[str] = []
    with trainer.evaluating(weights) as nets:

        def write() -> None:
            if trainer.backend.rank == 0:
                drawn = (trainer.method, nets, device, sample_streams(config.sample.seed), data)
                model, beside = describe_weights(trainer, weights), companion_of(*drawn)
                made = kind_of_samples(trainer.method)
                found = look(config.sample, data, sampler_of(*drawn), model, trainer.step, beside, made=made)
                found.write(run_dir / "samples")
                write_json(run_dir / "samples" / f"step_{trainer.step:06d}.json", found.record)
                if found.seen is not None:
                    trainer.measured(found.seen.metrics())
                    told.extend(alarms(found.seen))

        trainer.patiently(write)
    return told


# ---------------------------------------------------------------------- the end of a run


def finish(config: RunConfig, data: ImageData, trainer: Trainer, run_dir: Path) -> None:
    """Evaluation (samples shared out over ranks) and pictures after the last step."""
    if config.evaluate.at_end:
        weights = config.evaluate.weights
        backend = trainer.backend
        with trainer.evaluating(weights) as nets, backend.patience.together():
            sample = sampler_of(trainer.method, nets, backend.device, STREAMS, data)
            subject = subject_of(config, trainer.method, data, sample, backend.device, run_dir)
            shares = measured_shares(subject, backend.rank, backend.world)
        generated, reference = (share and all_of(share, backend.collectives, backend.device) for share in shares)
        if backend.rank == 0:
            assert generated is not None
            model = describe_weights(trainer, weights)
            write_json(run_dir / "evaluation.json", summary(subject, generated, reference, model, trainer.step))
    if config.sample.at_end:
        for warning in write_samples(config, data, trainer, run_dir):
            trainer.event("warning", warning)


def measured_shares(subject: Subject, rank: int, world: int) -> tuple[Part, Part | None]:
    """A rank's share of the samples, and of the real images."""
    settings = subject.settings
    generated = scorer(subject)(share(settings.samples, rank, world))
    if subject.data.kind == "points":
        return generated, None
    return generated, reference_scorer(subject)(share(len(reference_of(settings, subject.data)[1]), rank, world))


def all_of(mine: Part, collectives: Collectives, device: torch.device) -> Part:
    """The parts of all ranks together, on all ranks."""
    parts = gathered(save(mine.tensors()), collectives, device)
    return reduce(Part.merge, (Part.from_tensors(load(part)) for part in parts))
