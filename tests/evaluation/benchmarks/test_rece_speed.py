"""The forms that ours is timed against compute the same edit."""

from __future__ import annotations

import pytest
import torch

from evaluation.benchmarks import rece_speed
from evaluation.benchmarks.rece_forms import SD14, SDXL, Shapes, case, deviation, ours, plain, released

SMALL = Shapes("small", 24, (8, 8, 12), 10)


def test_all_forms_are_one_edit() -> None:
    given = case(SMALL)
    reference = plain(given, torch.float64)
    assert deviation(ours(given), reference, given.weights) < 1e-6
    assert deviation(plain(given), reference, given.weights) < 1e-2
    assert deviation(released(given), reference, given.weights) < 1e-2
    assert deviation(given.weights, reference, given.weights) == pytest.approx(1)
    assert all(weight.dtype == torch.float32 for weight in ours(given))


def test_shapes_of_the_models() -> None:
    """19.2 million parameters of SD 1.4; 140 matrices of SDXL."""
    assert (len(SD14.rows), sum(SD14.rows) * SD14.width) == (32, 19_169_280)
    assert (len(SDXL.rows), SDXL.width, sum(SDXL.rows)) == (140, 2048, 166_400)


def test_figures() -> None:
    found = rece_speed.of_model(SMALL, "", pairs=2, slow_pairs=2)
    goals = {name: figure["goal"] for name, figure in found.items()}
    assert goals == {
        "speedup_plain": ">= 2",
        "speedup_released": ">= 15",
        "error_ratio": ">= 1e4",
        "peak_memory_gb": "<= 0.5",
    }
    assert all(figure["value"] > 0 for figure in found.values())
    assert "1 thread" in found["speedup_plain"]["protocol"]
