"""One-step students of a small diffusion model of CIFAR-10 at 16 x 16: what an hour on two cores gives.

CIFAR-10 does not come with the distribution: the environment variable GENERATIVE_CIFAR10 names a folder in the layout
of the hub. Without it nothing is measured, and the benchmark says so. A teacher of 0.7 million parameters after five
epochs is far from a good one, and the features are those of a small classifier: distances can be compared with one
another, not with published ones. GENERATIVE_BENCH names a folder that an interrupted benchmark goes on from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from evaluation.benchmarks.distillation_figures import comparison, table
from evaluation.benchmarks.distillations import MOST, Distillation, Job
from evaluation.benchmarks.distilling import run_jobs
from evaluation.benchmarks.figure import Figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.benchmarks.mee_gan import VARIABLE
from evaluation.benchmarks.trainings import Training

DIVERGENCES = ("js", "rkl")
SEED = 0

NETWORK = {"name": "song", "width": 16, "multipliers": [1, 2, 4], "blocks": 1, "attention": [], "dropout": 0.0}
ADAM = {"name": "adamw", "weight_decay": 0.0}
COSINE = {"name": "cosine", "warmup_steps": 100, "min_ratio": 0.01}
TEACHER = Training(
    {"name": "edm", "network": NETWORK, "sigma_data": 0.5, "ema": [0.998], "sampling": {"steps": 18}},
    {"batch_size": 64, "optimizer": ADAM | {"lr": 2e-3, "betas": [0.9, 0.99], "clip_norm": 1.0}, "schedule": COSINE},
)
_CRITIC = {"optimizer": ADAM | {"lr": 2e-4, "betas": [0.0, 0.99], "clip_norm": 10.0}}
STUDENT = Training(
    {
        "name": "f_distill",
        # noise from 0.02 to 20
        "time": {"first": 110, "last": 770},
        "student_sigma": 5.0,
        "critic_updates": 2,
        "gan_weight": 3e-3,
        "levels": [1, 2],
        "ratio": {"decay": 0.9},
        "ema": [0.99],
    },
    {
        "batch_size": 32,
        "optimizer": ADAM | {"lr": 2e-4, "betas": [0.0, 0.99], "clip_norm": 10.0},
        "schedule": COSINE | {"warmup_steps": 20},
        "networks": {"fake": _CRITIC, "discriminator": {"optimizer": _CRITIC["optimizer"] | {"lr": 5e-4}}},
    },
)


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        teacher_steps: of the teacher's training.
        student_steps: of a student's.
        samples: drawn of each.
        real: training images that they are compared with, and that the classifier is trained on.
        judge_steps: of the classifier's training.
        most: training images that are read; None: all.
        workers: students at a time, and threads of the teacher; None: as many as cores.
    """

    teacher_steps: int = 4000
    student_steps: int = 1000
    samples: int = 2000
    real: int = 20_000
    judge_steps: int = 1500
    most: int | None = None
    workers: int | None = None


QUICK = Settings(10, 2, 50, 200, 10, 500, 1)


def run(quick: bool) -> dict[str, Figure]:
    """All figures; none without the data."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        say(f"CIFAR-10 is left out: {VARIABLE} does not name its folder")
        return {}
    return measure({"name": "hub", "id": folder, "validation_split": "test"}, QUICK if quick else Settings())


def measure(data: dict[str, Any], settings: Settings) -> dict[str, Figure]:
    """All figures of a data set, at 16 x 16 pixels."""
    workers = settings.workers or os.cpu_count() or 1
    of = distillation(data, settings)
    with workplace("f_distill_cifar10") as place:
        outcomes = run_jobs([Job(of, None, SEED, place, threads=workers)], 1)
        outcomes |= run_jobs([Job(of, name, SEED, place) for name in DIVERGENCES], workers)
    note = f"CIFAR-10 (JPEG copies) at 16 x 16, 0.7 million parameters, {of.teacher_steps:,} steps of 64 images of the "
    note += f"teacher, {of.student_steps:,} of 32 of each student; classes as in the real images; not comparable with "
    note += "published distances"
    found = {
        **comparison(outcomes, MOST, DIVERGENCES[0], [SEED], note),
        **table(outcomes, of.told, DIVERGENCES, [SEED], note),
    }
    return {f"cifar_{key}": entry for key, entry in found.items()}


def distillation(data: dict[str, Any], settings: Settings) -> Distillation:
    """What is trained and judged."""
    return Distillation(
        "CIFAR-10",
        {**data, "size": 16, "resize": True, "channels": 3, "max_samples": settings.most},
        TEACHER,
        settings.teacher_steps,
        TEACHER.method["sampling"],
        STUDENT,
        settings.student_steps,
        samples=settings.samples,
        real=settings.real,
        judge_steps=settings.judge_steps,
    )
