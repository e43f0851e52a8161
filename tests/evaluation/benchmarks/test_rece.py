"""Figures of `bench rece` from measurements that are made up, its settings, and a cell of it that is over soon."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evaluation.benchmarks import rece_cells
from evaluation.benchmarks.rece import OURS, PLAIN, QUICK, choose, drop_at, figures
from evaluation.benchmarks.rece_cells import Job, Settings, told
from evaluation.benchmarks.rece_variants import few_variants, variants
from generative.methods.rece.config import PRESETS


def cell(method, dial, others, attacked, erased=5, seed=0, label=7, validation=None):
    test = {"images": 100, "erased": erased, "others": others}
    attacks = {"images": 50, "soft": {"1": {"hits": attacked}}, "derived": 3, "words": 4, "inverse_ratio": 100.0}
    return {
        **{"seed": seed, "class": label, "method": method, "dial": dial, "test": test, "attacks": attacks},
        "validation": {"images": 50, "erased": erased, "others": others // 2} | (validation or {}),
    }


METHODS = [variant.method for variant in few_variants()]
TINY = replace(QUICK, steps=2, images=4, attack_images=2, attack_steps=1)
CELLS = [
    cell("original", 0, 100, 50),
    cell("rece", 0.1, 80, 10),
    cell("rece3", 0.1, 60, 0),
    cell("preserve", 0.02, 80, 20),
    cell("keep_only", 0.1, 80, 0, erased=30),
    cell("keep_only_relative", 0.1, 96, 20, erased=8),
    cell("cumulative", 0.02, 80, 5, erased=2),
    cell("cumulative", 0.1, 96, 30, erased=8),
]


def test_curves_are_compared_at_equal_accuracy():
    # plain at .90: half way from (.8, .2) to (1, 1) = .6; cumulative: from (.8, .1) to (.96, .6): .1 + .5 * 10 / 16
    found = drop_at(CELLS, ("cumulative",), 0.9)
    assert found.value == pytest.approx(0.6 - (0.1 + 0.5 * 10 / 16))
    assert found.n == 1
    assert "straight lines between settings and the untouched model" in found.protocol
    assert drop_at(CELLS, ("preserve",), 0.9).value == pytest.approx(0.6 - 0.7)
    assert drop_at(CELLS, ("cumulative",), 0.3) is None


def test_drops_are_paired_over_class_and_model():
    other = [{**c, "seed": 1} for c in CELLS]
    other[1] = cell("rece", 0.1, 80, 30, seed=1)  # plain at .90: .8
    found = drop_at([*CELLS, *other], ("preserve",), 0.9)
    assert (found.value, found.n) == (pytest.approx((-0.1 + 0.1) / 2), 2)
    assert found.stderr == pytest.approx(0.1)


def test_the_setting_is_chosen_on_validation_images():
    ours = [c for c in CELLS if c["method"] == "cumulative"]
    assert [c["dial"] for c in choose(ours)] == [0.1]
    assert choose([cell("cumulative", 0.5, 99, 0, validation={"others": 44})]) == []
    both = [cell("cumulative", 1, 95, 9, erased=9), cell("cumulative", 2, 92, 9, erased=3)]
    assert [c["dial"] for c in choose(both)] == [2]


def test_figures_and_goals():
    found = figures(CELLS)
    assert found["erased_rate"]["value"] == pytest.approx(0.08)
    assert found["erased_rate"]["goal"] == "<= 0.10"
    assert found["others_accuracy"]["value"] == pytest.approx(0.96)
    assert found["asr_drop_at_090"]["goal"] == "> 0"
    assert found["asr_drop_at_090"]["value"] == pytest.approx(0.6 - 0.5)
    assert found["asr_drop_at_090_cumulative"]["value"] == pytest.approx(0.6 - (0.1 + 0.5 * 10 / 16))
    assert found["asr_drop_at_090_cumulative"]["goal"] is None
    assert found["asr_1_chosen"]["value"] == pytest.approx(0.4)
    assert found["asr_1_rece_0.1"]["value"] == pytest.approx(0.2)
    assert found["asr_derived_original"]["value"] == pytest.approx(0.06)
    assert found["inverse_norm_original"]["value"] == pytest.approx(2)


def test_every_method_has_a_setting_of_its_own_name():
    names = [variant.name for variant in variants()]
    assert len(set(names)) == len(names)
    assert set(OURS) | set(PLAIN) | {"original", "uce", "preserve"} <= {v.method for v in variants()}
    assert set(METHODS) <= {v.method for v in variants()}
    assert all(v.config.cumulative == v.method.startswith(("cumulative", "keep_only")) for v in variants() if v.config)
    assert all(bool(v.config.start.shrink) == v.method.startswith("keep_only") for v in variants() if v.config)
    assert PRESETS["keep_only"].erase == next(
        v.config.model_copy(update={"start": shrunk(v.config.start), "step": shrunk(v.config.step)})
        for v in variants()
        if v.method == "keep_only"
    )
    assert told(Settings()) != told(Settings(steps=7))
    assert math.inf in Settings().rhos


def shrunk(step):
    """With the preset's weights."""
    given = PRESETS["keep_only"].erase.step
    return step.model_copy(update={"shrink": given.shrink, "preserve_scale": given.preserve_scale})


class Judge:
    """Sees the brightness of the first pixel."""

    def class_probabilities(self, images):
        return torch.nn.functional.one_hot((images[:, 0, 0, 0] > 0).long() * 7, 10).float()[:, None]


def test_a_cell_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(rece_cells, "judge", lambda cache: Judge())
    small = {"channels": [8, 8], "text_width": 16, "text_layers": 1}
    monkeypatch.setattr(rece_cells, "METHOD", rece_cells.METHOD | {"network": small, "sampling": {"steps": 1}})
    job = Job(0, 7, TINY, str(tmp_path))
    found = rece_cells.run(job)
    assert [c["method"] for c in found] == METHODS
    left = [c.get("left_out") for c in found]
    assert [one is not None for one in left] == [method.endswith("but_one") for method in METHODS]
    assert left[-1]["images"] == 2
    assert found[0]["attacks"]["inverse_ratio"] == pytest.approx(1, rel=1e-6)
    assert all(c["test"]["images"] == TINY.images for c in found)
    monkeypatch.setattr(rece_cells, "_bench", None)  # what is on the disk needs no model
    assert rece_cells.run(job) == found
    assert len(list((tmp_path / "cells").iterdir())) == len(METHODS)
    assert json.loads(next((tmp_path / "cells").iterdir()).read_text())
    assert figures(found)
