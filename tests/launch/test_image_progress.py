"""One count over the training of the extractor and what is measured."""

from __future__ import annotations

from launch.image_progress import EvaluationProgress


def test_samples_follow_the_training_of_the_extractor() -> None:
    told: list[tuple[int, int]] = []
    counted = EvaluationProgress(lambda *counts: told.append(counts), 30)
    counted.training(1, 2)
    counted.training(2, 2)
    counted.measured(10)
    counted.parts(3, 3)
    assert told == [(1, 32), (2, 32), (12, 32), (32, 32)]


def test_without_a_training_there_are_samples_only() -> None:
    told: list[tuple[int, int]] = []
    counted = EvaluationProgress(lambda *counts: told.append(counts), 30)
    counted.parts(1, 3)
    assert told == [(10, 30)]
