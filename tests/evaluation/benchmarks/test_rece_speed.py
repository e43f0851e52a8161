"""The forms that ours is timed against compute the same edit."""

from __future__ import annotations

import pytest
import torch

from evaluation.benchmarks import rece_speed
from evaluation.benchmarks.rece_forms import SD14, SDXL, Shapes, case, deviation, exact, ours, plain, released

SMALL = Shapes("small", 24, (8, 8, 12), 10)


def test_all_forms_are_one_edit() -> None:
    given = case(SMALL)
    reference = exact(given)
    assert deviation(ours(given), reference, given.weights) < 1e-6
    assert deviation(plain(given), reference, given.weights) < 1e-2
    assert deviation(released(given), reference, given.weights) < 1e-2
    assert deviation(given.weights, reference, given.weights) == pytest.approx(1)
    assert all(weight.dtype == torch.float32 for weight in ours(given))


def test_a_sample_of_layers_is_edited_as_in_the_whole() -> None:
    """Without the derivation: after the first edit the others are still as they were."""
    given = case(SMALL)
    found = released(given, every=2)
    assert torch.equal(found[1], given.weights[1])
    assert all(not torch.equal(found[i], given.weights[i]) for i in (0, 2))
    wide = [rows for number, rows in enumerate(SDXL.rows) if number % rece_speed.SAMPLE == 0]
    assert (wide.count(640), wide.count(1280)) == (20 // rece_speed.SAMPLE, 120 // rece_speed.SAMPLE)


def test_shapes_of_the_models() -> None:
    """19.2 million parameters of SD 1.4; 140 matrices of SDXL."""
    assert (len(SD14.rows), sum(SD14.rows) * SD14.width) == (32, 19_169_280)
    assert (len(SDXL.rows), SDXL.width, sum(SDXL.rows)) == (140, 2048, 166_400)


def test_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as once:  # one process that imports torch is enough
        once.setattr(rece_speed, "peak_bytes", lambda shapes: 10**8)
        large = rece_speed.of_model(SMALL, "_large", pairs=2, slow_pairs=2, every=2)
    assert all(figure["goal"] is None for figure in large.values())
    assert "2 times its two edits" in large["speedup_released_large"]["protocol"]
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
