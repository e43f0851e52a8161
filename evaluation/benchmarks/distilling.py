"""Trains and judges what `distillations` describes, in processes of their own; what a folder has already stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from evaluation.benchmarks.distillations import Job, Outcome, Scores, scored_on
from evaluation.benchmarks.figure import say
from evaluation.benchmarks.judges import classifier, evenly
from evaluation.benchmarks.trainings import Training, draw_with, train
from evaluation.estimate import Estimate, mean_estimate
from evaluation.image import KeepSettings, compare, in_batches, score_part
from evaluation.images.small_network import SmallSettings
from evaluation.process_pool import in_pool
from generative.config import merged
from generative.data.files import write_aside
from generative.data.image_config import ImageDataConfig
from generative.data.images import ImageData, open_images
from generative.data.lock import locked
from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.method import Sampler
from generative.methods.edm.method import NET, Edm
from generative.methods.edm.sampler import EdmSampler
from generative.randomness import Streams
from generative.training.checkpoint import CheckpointStore
from generative.training.checkpoint.rotation import complete_steps
from generative.training.trainer import Trainer


def run_jobs(jobs: Sequence[Job], workers: int) -> dict[tuple[str | None, int], Outcome]:
    """Train and judge, `workers` at a time; what the folder has already is read from there."""
    found: dict[tuple[str | None, int], Outcome] = {}
    for job, outcome in in_pool(run_job, jobs, min(workers, len(jobs))):
        assert outcome is not None, f"the process of {job.name} was killed"
        found[job.divergence, job.seed] = outcome
        for calls, scores in outcome.items():
            told = ", ".join(f"{metric} {score.value:.3f}" for metric, score in scores.items())
            say(f"{job.name}, {calls} calls: {told}")
    return found


def run_job(job: Job) -> Outcome:
    """Train, where that has not been done yet, and judge."""
    if job.outcome.is_file():
        stored = json.loads(job.outcome.read_text(encoding="utf-8"))
        return {int(k): {name: Estimate.from_json(e) for name, e in scores.items()} for k, scores in stored.items()}
    torch.set_num_threads(job.threads)
    adapter: TypeAdapter[Any] = TypeAdapter(ImageDataConfig)
    data = open_images(adapter.validate_python(dict(job.of.data)))
    score = _judge(job, data)
    found = _teacher(job, data, score) if job.divergence is None else {1: _student(job, data, score)}
    text = json.dumps({k: {name: e.to_json() for name, e in scores.items()} for k, scores in found.items()})
    write_aside(job.outcome, text.encode())
    shutil.rmtree(job.student, ignore_errors=True)
    return found


def _judge(job: Job, data: ImageData) -> Callable[[Sampler], Scores]:
    """Scores of what a sampler draws, of the classes that the real images have."""
    of = job.of
    extractor = classifier(data, of.name, of.real, SmallSettings(steps=of.judge_steps), job.folder)
    real, keep = evenly(data, of.real), KeepSettings(reservoir=of.samples)
    reference = score_part(in_batches(real["sample"]), extractor, keep)
    ids = torch.arange(of.samples)
    labels = real["label"][ids % len(real["label"])]

    def score(sampler: Sampler) -> Scores:
        images = draw_with(sampler, ids, Streams(job.seed).within("bench"), labels)
        found = compare(score_part(in_batches(images), extractor, keep), reference, ["fid", "improved"])
        taken_for = torch.cat(
            [extractor.class_probabilities(part)[:, 0].argmax(1) for part in torch.split(images, 1000)]
        )
        right = mean_estimate((taken_for == labels).double().numpy(), "", scored_on(found["fid"]))
        return {
            "fd": found["fid"],
            "precision": found["improved_precision"],
            "recall": found["improved_recall"],
            "accuracy": right,
        }

    return score


def _teacher(job: Job, data: ImageData, score: Callable[[Sampler], Scores]) -> Outcome:
    trainer = _trained_teacher(job, data)
    method, found = trainer.method, {}
    assert isinstance(method, Edm)
    with trainer.evaluating("ema") as nets:
        for calls, section in job.of.samplers.items():
            sampling = EdmSamplingConfig.model_validate(dict(section))
            found[calls] = score(EdmSampler(nets[NET], sampling, method.size))
    return found


def _student(job: Job, data: ImageData, score: Callable[[Sampler], Scores]) -> Scores:
    if job.of.teacher_steps not in complete_steps(job.teacher):
        _trained_teacher(job, data)
    trainer = _trained(job, data, student_of(job, data), job.of.student_steps, job.student, job.name)
    with trainer.evaluating("ema") as nets:
        return score(trainer.method.sampler(nets))


def student_of(job: Job, data: ImageData) -> Training:
    """How the student is trained, with what its teacher tells."""
    teacher = job.of.teacher.method
    told = {
        "divergence": job.divergence,
        "teacher": str(job.teacher),
        "teacher_weights": f"ema={teacher['ema'][0]}",
        "network": {**teacher["network"], "dropout": 0.0},
        "shape": list(data.facts.sample_shape or ()),
        "classes": data.facts.classes,
        "sigma_data": teacher["sigma_data"],
    }
    return Training(merged(job.of.student.method, told), job.of.student.train)


def _trained_teacher(job: Job, data: ImageData) -> Trainer:
    """One process trains it; others that need it wait for that."""
    with locked(job.teacher.with_suffix(".lock")):
        name = f"{job.of.name}, teacher, seed {job.seed}"
        return _trained(job, data, job.of.teacher, job.of.teacher_steps, job.teacher, name)


def _trained(job: Job, data: ImageData, run: Training, steps: int, folder: Path, name: str) -> Trainer:
    """Train, from the newest checkpoint in the folder where there is one."""
    store = CheckpointStore(folder, keep_last=1)
    return train(run, data, steps, job.seed, job.threads, name=name, store=store)[0]
