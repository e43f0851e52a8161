"""The benchmarks of f-distill's students in their smallest form: figures, how they compare, and that they go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks import distilling, f_distill, f_distill_cifar10
from evaluation.benchmarks.distillation_figures import METRICS, comparison, over_seeds, table
from evaluation.benchmarks.distillations import FEW, MOST, Job, Outcome
from evaluation.benchmarks.distilling import run_job, student_of
from evaluation.benchmarks.kept import FOLDER
from evaluation.estimate import Estimate
from generative.data.image_config import DigitsConfig
from generative.data.images import open_images

TINY = replace(f_distill.QUICK, teacher_steps=2, student_steps=1, samples=30, judge_steps=2)


def scores(fd: float, recall: float) -> Outcome:
    values = {"fd": fd, "precision": 0.9, "recall": recall, "accuracy": 0.8}
    return {1: {name: Estimate(value, 0.1, 30, "", "30 against 40; k=3") for name, value in values.items()}}


def test_how_students_compare_with_their_own_teachers() -> None:
    teachers = {(None, seed): {MOST: scores(fd, 0.9)[1]} for seed, fd in enumerate((1.0, 2.0, 4.0))}
    js = {("js", seed): scores(fd, recall) for seed, (fd, recall) in enumerate(((1.5, 0.6), (1.0, 0.8), (4.0, 0.7)))}
    rkl = {("rkl", seed): scores(1.0, 0.5) for seed in range(3)}
    found = comparison({**teachers, **js, **rkl}, MOST, "js", (0, 1, 2), "a note")
    assert found["fd_ratio_student_teacher"]["values"] == [1.5, 0.5, 1.0]
    assert found["fd_ratio_student_teacher"]["value"] == 1.0
    assert found["recall_student"]["value"] == 0.7
    assert found["recall_gained_js"]["values"] == pytest.approx([0.1, 0.3, 0.2])
    assert found["recall_gained_js"]["stderr"] == pytest.approx(0.1 / 3**0.5)
    assert "recall_gained_kl" not in found
    rows = table({**teachers, **js, **rkl}, {MOST: "Heun"}, ("js", "rkl"), (0, 1, 2), "a note")
    assert rows["fd_teacher"]["value"] == pytest.approx(7 / 3)
    assert rows["fd_js"]["values"] == [1.5, 1.0, 4.0]


def test_one_seed_keeps_its_own_error_and_several_have_that_of_their_spread() -> None:
    one, other = (Estimate(value, 0.5, 30, "", "on this; error by that") for value in (1.0, 3.0))
    assert over_seeds([one], [7]).stderr == 0.5
    assert over_seeds([one], [7]).protocol == "seed 7; on this; error by that"
    assert over_seeds([one, other], [7, 8]).stderr == pytest.approx(1.0)
    assert over_seeds([one, other], [7, 8]).protocol == "mean over seeds 7, 8, each on this"


def test_a_student_is_told_what_its_teacher_is(tmp_path: Path) -> None:
    job = Job(f_distill.distillation(TINY), "kl", 3, tmp_path)
    method = student_of(job, open_images(DigitsConfig())).method
    teacher = job.of.teacher.method
    assert method["network"] == teacher["network"] | {"dropout": 0.0}
    assert (method["shape"], method["classes"]) == ([1, 8, 8], 10)
    assert 2 * job.of.sampling["steps"] - 1 == MOST
    assert job.of.told[MOST] == "Heun, 18 steps, churn 10"
    assert job.of.samplers[4] == {"sampler": "dpm_solver_2m", "steps": 4}
    assert (method["divergence"], method["sigma_data"]) == ("kl", teacher["sigma_data"])
    assert method["teacher_weights"] == "ema=0.999"
    other = replace(job, of=replace(job.of, teacher_steps=3))
    assert other.teacher != job.teacher
    assert other.outcome != job.outcome
    assert replace(job, of=replace(job.of, student_steps=9)).teacher == job.teacher


def test_digits_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.setattr(f_distill, "QUICK", TINY)
    monkeypatch.setattr(f_distill, "DIVERGENCES", ("rkl", "js"))
    figures = f_distill.run(quick=True)
    assert f_distill.GOALS.keys() <= figures.keys()
    assert {f"{metric}_{who}" for metric in METRICS for who in ("teacher", "teacher_4", "js", "rkl")} <= figures.keys()
    assert all(figures[key]["goal"] == goal for key, goal in f_distill.GOALS.items())
    assert "30 generated against 1,400 reference images" in figures["recall_js"]["protocol"]
    assert not list((tmp_path / "kept" / "f_distill").glob("student-*"))

    job = Job(f_distill.distillation(TINY), "js", 0, tmp_path / "kept" / "f_distill")

    def fail(*args: object, **further: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(distilling, "train", fail)
    assert run_job(job)[1]["fd"].value == figures["fd_js"]["value"]
    job.outcome.unlink()
    with pytest.raises(AssertionError, match="trained again"):
        run_job(job)


def test_cifar10_on_made_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.delenv(f_distill_cifar10.VARIABLE, raising=False)
    assert f_distill_cifar10.run(quick=True) == {}
    pixels = np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        (tmp_path / "images" / f"class{number % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / f"class{number % 3}" / f"{number}.png")
    data: dict[str, Any] = {"name": "folder", "path": str(tmp_path / "images"), "classes": True}
    teacher = f_distill_cifar10.TEACHER
    narrow = {"network": f_distill_cifar10.NETWORK | {"width": 4}}
    few, student = {"batch_size": 8}, f_distill_cifar10.STUDENT
    narrow_teacher = replace(teacher, method={**teacher.method, **narrow}, train={**teacher.train, **few})
    monkeypatch.setattr(f_distill_cifar10, "TEACHER", narrow_teacher)
    monkeypatch.setattr(f_distill_cifar10, "STUDENT", replace(student, train={**student.train, **few}))
    settings = replace(f_distill_cifar10.QUICK, teacher_steps=1, student_steps=1, samples=24, judge_steps=1)
    figures = f_distill_cifar10.measure(data | {"cache": str(tmp_path / "cache")}, settings)
    assert {f"cifar_fd_teacher_{calls}" for calls in FEW} <= figures.keys()
    assert {"cifar_fd_js", "cifar_fd_rkl", "cifar_accuracy_teacher", "cifar_recall_gained_js"} <= figures.keys()
    assert figures["cifar_fd_js"]["stderr"] > 0
    assert "not comparable with published" in figures["cifar_fd_js"]["protocol"]
