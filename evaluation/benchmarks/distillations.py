"""Teachers, and one-step students of them, that benchmarks train and judge: what, and where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.trainings import Training
from evaluation.estimate import Estimate
from evaluation.images.extractors import identity

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


def scored_on(estimate: Estimate) -> str:
    """The beginning of a metric's protocol: how many images, against what, in whose features."""
    return estimate.protocol.split(";")[0]
