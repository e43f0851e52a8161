"""The benchmark of GANs in its smallest form: what it is asked for is there, and named as the goals name it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from evaluation.benchmarks import mee_gan, mee_gan_cost
from evaluation.benchmarks.figure import median_estimate
from evaluation.benchmarks.mee_gan import GOALS, QUICK
from generative.data.image_config import PointsConfig, StackedDigitsConfig
from tests.support.judges import blind_extractor

TINY = replace(QUICK, updates=2, samples=60, point_updates=2)


@pytest.fixture
def blind_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = blind_extractor()
    monkeypatch.setattr(mee_gan, "judge", lambda: extractor)


def test_figures_of_stacked_digits(blind_judge: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mee_gan, "StackedDigitsConfig", partial(StackedDigitsConfig, size=2000, validation_size=100))
    figures = mee_gan.stacked(TINY)
    assert GOALS.keys() <= figures.keys()
    for name in ("gan", "r1", "released", "mee"):
        assert 1 <= figures[f"modes_{name}"]["value"] <= 60
        assert figures[f"kl_{name}"]["value"] >= math.log(1000 / 60)
        assert figures[f"modes_{name}"]["values"] == [figures[f"modes_{name}"]["value"]]
        assert "2 updates of each network" in figures[f"modes_{name}"]["protocol"]


def test_figures_of_points_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mee_gan.VARIABLE, raising=False)
    monkeypatch.setattr(mee_gan, "PointsConfig", partial(PointsConfig, size=2000))
    figures = mee_gan.points(TINY)
    assert {f"{kind}_modes_{name}" for kind in ("ring", "grid") for name in ("gan", "mee")} <= figures.keys()
    assert mee_gan.cifar(TINY) == {}
    for name in ("BATCH", "WIDTH"):
        monkeypatch.setattr(mee_gan_cost, name, 8)
    cost = mee_gan_cost.figures(2)
    assert cost["fused_speedup"]["goal"] == ">= 1.5"
    assert cost["entropy_overhead"]["value"] > 0


def test_median_and_its_error() -> None:
    found = median_estimate([1.0, 2.0, 9.0], "three")
    assert found.value == 2.0
    assert found.stderr == pytest.approx(1.2533 * torch.tensor([1.0, 2.0, 9.0]).std().item() / 3**0.5)
    assert median_estimate([4.0], "one").stderr is None
