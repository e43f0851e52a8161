"""One-step students of a diffusion model of handwritten digits: quality and coverage by divergence.

Three teachers (the configuration `edm/digits`, seeds 1 to 3) and, of each, a student by each of six divergences
(`f_distill/digits`). All are judged by 5,000 samples, of the classes that the 1,400 training images have,
against those images in the features of a small classifier of them; `bench f_distill_cifar10` does so with photographs.
Settings were chosen on seeds 0 (teacher) and 100 (students). About 100 minutes on two cores; GENERATIVE_BENCH names
a folder that an interrupted benchmark goes on from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from evaluation.benchmarks.distillation_figures import comparison, table
from evaluation.benchmarks.distillations import MOST, Distillation, Job
from evaluation.benchmarks.distilling import run_jobs
from evaluation.benchmarks.figure import Figure
from evaluation.benchmarks.kept import workplace
from evaluation.benchmarks.small_runs import load_sections
from evaluation.benchmarks.trainings import Training
from generative.config import Config
from generative.methods.edm.config import EdmConfig
from generative.methods.f_distill.config import FDistillConfig
from generative.training.config import TrainConfig

DIVERGENCES = ("js", "rkl", "kl", "sh", "jf", "sf")
DEFAULT = "js"
GOALS = {
    "fd_teacher": "<= 0.8",
    "fd_ratio_student_teacher": "<= 1.2",
    "recall_student": ">= 0.7",
    "recall_gained_js": ">= 0",
}


class _Teacher(Config):
    method: EdmConfig
    train: TrainConfig


class _Student(Config):
    method: FDistillConfig
    train: TrainConfig


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        seeds: teachers, each with a student by each divergence.
        teacher_steps: of a teacher's training; None: as configured.
        student_steps: of a student's training; None: as configured.
        samples: drawn of each.
        judge_steps: of the classifier's training.
        workers: trainings at a time; None: as many as cores.
    """

    seeds: tuple[int, ...] = (1, 2, 3)
    teacher_steps: int | None = None
    student_steps: int | None = None
    samples: int = 5000
    judge_steps: int = 600
    workers: int | None = None


QUICK = Settings((0,), 20, 3, 200, 50, 1)


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    settings = QUICK if quick else Settings()
    of = distillation(settings)
    with workplace("f_distill") as folder:
        jobs = [Job(of, name, seed, folder) for name in (None, *DIVERGENCES) for seed in settings.seeds]
        outcomes = run_jobs(jobs, settings.workers or os.cpu_count() or 1)
    note = f"{of.teacher_steps:,} steps of each teacher (edm/digits), {of.student_steps:,} of each student "
    note += "(f_distill/digits); classes as in the real images"
    found = {
        **comparison(outcomes, MOST, DEFAULT, settings.seeds, note),
        **table(outcomes, of.told, DIVERGENCES, settings.seeds, note),
    }
    return {key: entry | {"goal": GOALS.get(key)} for key, entry in found.items()}


def distillation(settings: Settings) -> Distillation:
    """As configured in `edm/digits` and `f_distill/digits`."""
    teacher = load_sections("edm/digits", ["method.ema_power=[]"], _Teacher)
    student = load_sections("f_distill/digits", [], _Student)
    of_teacher, of_student = (trained_as(one.method, one.train) for one in (teacher, student))
    assert teacher.train.steps is not None
    assert student.train.steps is not None
    return Distillation(
        "digits",
        {"name": "digits"},
        of_teacher,
        settings.teacher_steps or teacher.train.steps,
        of_teacher.method["sampling"],
        of_student,
        settings.student_steps or student.train.steps,
        samples=settings.samples,
        judge_steps=settings.judge_steps,
    )


def trained_as(method: EdmConfig | FDistillConfig, train: TrainConfig) -> Training:
    """What of a configuration says how networks are trained."""
    kept = {"batch_size", "optimizer", "schedule", "networks"}
    return Training(method.model_dump(mode="json"), train.model_dump(mode="json", include=kept))
