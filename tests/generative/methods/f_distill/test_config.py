"""Settings: presets of published runs, and what does not go together."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from generative.methods.f_distill.config import FDistillConfig, RatioConfig, TimeConfig
from generative.methods.f_distill.presets import PRESETS, PresetName


def test_every_preset_is_one() -> None:
    assert list(get_args(PresetName)) == list(PRESETS)
    for name in PRESETS:
        found = FDistillConfig(preset=name)
        assert FDistillConfig.model_validate(found.model_dump()) == found


@pytest.mark.parametrize(
    ("name", "method", "training"),
    [
        ("paper_cifar10", ("kl", 5, 1e-3, 1.0, 1.0, [0, 1, 2]), (2048, 1e-4, 60_000)),
        ("paper_imagenet64", ("js", 5, 3e-3, 1.0, 0.0, [3]), (512, 2e-6, 380_000)),
        ("paper_sd15", ("js", 10, 1e-3, 1.75, 1.0, [4]), (1024, 1e-5, 60_000)),
        ("fastgen_cifar10", ("kl", 4, 1e-3, 1.0, 0.0, [0, 1, 2]), (2048, 1e-4, 100_000)),
        ("fastgen_imagenet64", ("js", 4, 3e-3, 1.0, 0.0, [3]), (512, 2e-6, 600_000)),
        ("fastgen_sd15", ("js", 9, 1e-3, 1.75, 0.0, [4]), (2048, 1e-5, 100_000)),
        ("fastgen_sdxl", ("js", 4, 5e-3, 8.0, 0.0, [3]), (None, 5e-7, 25_000)),
        ("fastgen_wan", ("js", 4, 1e-3, 5.0, 0.0, None), (None, 5e-5, None)),
        ("dmd2_imagenet64", ("rkl", 5, 3e-3, 1.0, 0.0, [3]), (280, 2e-6, 200_000)),
        ("dmd2_sd15", ("rkl", 10, 0.0, 1.75, 0.0, [4]), (2048, 1e-5, 40_000)),
    ],
)
def test_published_tables(name: str, method: tuple[Any, ...], training: tuple[Any, ...]) -> None:
    c, t = FDistillConfig(preset=name), PRESETS[name].training
    assert (c.divergence, c.critic_updates, c.gan_weight, c.guidance, c.r1.weight, c.levels) == method
    assert t is not None
    assert (t.batch_size, t.lr, t.iterations) == training


def test_released_details() -> None:
    found = FDistillConfig(preset="fastgen_imagenet64")
    assert (found.ratio.decay, found.ratio.binning, found.ratio.minimum_count) == (0.5, "linear", 1)
    assert found.ema == pytest.approx([0.9995, 0.99975, 0.998], abs=1e-5)
    assert FDistillConfig(preset="fastgen_cifar10").ratio.decay == 0.0
    for name in ("paper_sd15", "fastgen_sd15", "dmd2_sd15", "dmd2_sd15_fine_tuning"):
        assert FDistillConfig(preset=name).student_sigma == 14.6146
    assert {n for n in PRESETS if FDistillConfig(preset=n).backbone == "fake"} == {n for n in PRESETS if "dmd2" in n}
    assert FDistillConfig(preset="dmd2_sd15").fake_weight == "eps"
    dmd2 = FDistillConfig(preset="dmd2_imagenet64").time
    assert (dmd2.first, dmd2.last, dmd2.critic_range) == (20, 980, (0, 999))
    assert TimeConfig().critic_range == (2, 998)
    for name in ("fastgen_sd15", "fastgen_sdxl"):  # floor(1000 t), t from 0.001 to 0.999
        assert FDistillConfig(preset=name).time.critic_range == (1, 998)


def test_what_is_given_goes_above_the_preset() -> None:
    found = FDistillConfig.model_validate({"preset": "fastgen_cifar10", "divergence": "sh", "ratio": {"bins": 3}})
    assert (found.divergence, found.ratio.bins, found.ratio.binning) == ("sh", 3, "linear")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": {"lower": 3.0, "upper": 2.0}}, "a lower bound below the upper one"),
        ({"ratio": {"lower": 3.0}}, "leave 1 out"),
        ({"ratio": {"decay": 1.0}}, "less than 1"),
        ({"time": {"sigma_min": 90.0}}, "sigma_min below sigma_max"),
        ({"time": {"first": 999}}, "time.first=999, time.last=998"),
        ({"time": {"critic_last": 1000}}, "lower method.time.critic_first"),
        ({"ema": [1.0]}, "decay rates above 0 and below 1"),
        ({"divergence": "alpha"}, "a value of alpha for the alpha family"),
        ({"alpha": 0.5}, "divergence=js with alpha=0.5"),
        ({"levels": [1, 1]}, "one or more levels, each once"),
        ({"levels": []}, "coarsest level"),
        ({"guidance": 0.5}, "greater than or equal to 1"),
        ({"divergences": "js"}, "Extra inputs"),
    ],
)
def test_what_does_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FDistillConfig.model_validate(values)


def test_defaults_are_those_advised() -> None:
    found = FDistillConfig()
    assert (found.divergence, found.critic_updates, found.ratio) == ("js", 5, RatioConfig())
    assert (found.ratio.lower, found.ratio.upper, found.ratio.decay) == (0.1, 20.0, 0.5)
