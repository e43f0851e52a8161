"""Teachers, and one-step students of them, that benchmarks train and judge: in processes of their own.

The environment variable GENERATIVE_F_DISTILL names a folder for finished and half-finished trainings: with it, a
benchmark that was interrupted goes on when it is started again. Without it they are kept nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from evaluation.benchmarks.figure import say
from evaluation.benchmarks.judges import classifier, evenly
from evaluation.benchmarks.trainings import Training, draw_with, train
from evaluation.estimate import Estimate, mean_estimate
from evaluation.image import KeepSettings, compare, in_batches, score_part
from evaluation.images.extractors import identity
from evaluation.images.small_network import SmallSettings
from evaluation.speech_pool import in_pool
from generative.config import merged
from generative.data.files import write_aside
from generative.data.image_config import ImageDataConfig
from generative.data.images import ImageData, open_images
from generative.data.lock import locked
from generative.method import Sampler
from generative.methods.edm.config import EdmSamplingConfig
from generative.methods.edm.method import NET, Edm
from generative.methods.edm.sampler import EdmSampler
from generative.randomness import Streams
from generative.training.checkpoint import CheckpointStore
from generative.training.checkpoint.rotation import complete_steps
from generative.training.trainer import Trainer

FOLDER = "GENERATIVE_F_DISTILL"

MOST = 35
"""Network calls of 18 steps of Heun's method: the teacher's samples that a student is held against."""

FEW = {1: "one step", 4: "DPM-Solver++(2M)", 18: "DPM-Solver++(2M)"}
"""Other samplers of the teacher in words, by their calls."""

Scores = Mapping[str, Estimate]
"""fd, precision, recall and accuracy."""

Outcome = Mapping[int, Scores]
"""Scores by the network calls of a sample."""

Outcomes = Mapping[tuple[str | None, int], Outcome]
"""By divergence (None: the teacher) and seed."""


@dataclass(frozen=True)
class Distillation:
    """A teacher, how it draws, and its students.

    Args:
        name: of the data, for people.
        data: the section `data`.
        teacher: how the teacher is trained; its first average is distilled.
        teacher_steps: of its training.
        sampling: the section `sampling` of MOST calls.
        student: how a student is trained, but for its teacher and divergence.
        student_steps: of its training.
        samples: drawn of each.
        real: most training images that they are compared with, and that the classifier is trained on.
        judge_steps: of the classifier's training.
    """

    name: str
    data: Mapping[str, Any]
    teacher: Training
    teacher_steps: int
    sampling: Mapping[str, Any]
    student: Training
    student_steps: int
    samples: int = 5000
    real: int = 10_000
    judge_steps: int = 600

    @property
    def samplers(self) -> dict[int, Mapping[str, Any]]:
        """The section `sampling` by calls."""
        few = {calls: {"sampler": "dpm_solver_2m", "steps": calls} for calls in FEW}
        return {**few, MOST: self.sampling}

    @property
    def told(self) -> dict[int, str]:
        """The same in words."""
        return FEW | {MOST: f"Heun, {self.sampling['steps']} steps, churn {self.sampling.get('churn', 0):g}"}


@dataclass(frozen=True)
class Job:
    """One training, and how good it is.

    Args:
        of: what is distilled.
        divergence: of the student; None: the teacher.
        seed: of teacher, student and samples.
        folder: of trainings and outcomes.
        threads: of torch.
    """

    of: Distillation
    divergence: str | None
    seed: int
    folder: Path
    threads: int = 1

    @property
    def name(self) -> str:
        """For people."""
        who = "teacher" if self.divergence is None else f"student by {self.divergence}"
        return f"{self.of.name}, {who}, seed {self.seed}"

    @property
    def outcome(self) -> Path:
        """File of the scores."""
        return self.folder / f"{identity(asdict(self.of), self.divergence, self.seed)[:24]}.json"

    @property
    def teacher(self) -> Path:
        """Folder of the teacher's checkpoints."""
        of = self.of
        return self.folder / f"teacher-{identity(of.data, asdict(of.teacher), of.teacher_steps, self.seed)[:24]}"

    @property
    def student(self) -> Path:
        """Folder of the student's."""
        return self.folder / f"student-{self.outcome.stem}"


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """The folder that GENERATIVE_F_DISTILL names, or one that is removed in the end."""
    kept = os.environ.get(FOLDER)
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="f-distill-") as folder:
        yield Path(folder)


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
        right = mean_estimate((taken_for == labels).double().numpy(), "", found["fid"].protocol.split(";")[0])
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
    quarter, begun = max(1, steps // 4), time.perf_counter()

    def tell(step: int, trainer: Trainer) -> None:
        if step % quarter == 0:
            say(f"  {name}: step {step:,} of {steps:,} ({time.perf_counter() - begun:.0f} s)")

    return train(run, data, steps, job.seed, job.threads, tell, CheckpointStore(folder, keep_last=1))[0]
