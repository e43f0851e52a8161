"""The paper's presets: sizes and step counts that the paper and its code name."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from generative.config import Config, load
from generative.data.config import TextDataConfig
from generative.method import DataFacts
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.catalogue import METHODS
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.nets.accounting import total_parameters
from generative.training.config import TrainConfig


class Preset(Config, extra="ignore"):
    method: Annotated[MaskedDiffusionConfig | AutoregressiveConfig, Field(discriminator="name")]
    train: TrainConfig
    data: TextDataConfig


@pytest.mark.parametrize(
    ("name", "overrides", "parameters", "steps"),
    [
        ("masked_diffusion/paper", [], 219_050_496, 18_710),
        ("masked_diffusion/paper+sizes/6m", ["train.flops=6e18"], 22_679_040, 303_004),
        ("masked_diffusion/220m", [], 219_050_496, 187_107),
        ("masked_diffusion/1.1b", [], 1_142_367_744, 256_478),
        ("autoregressive/paper+sizes/1028m", ["train.flops=1e20"], 1_142_365_952, 30_932),
        ("autoregressive/220m", [], 219_049_728, 187_107),
    ],
)
def test_presets(name, overrides, parameters, steps):
    preset = load(name, overrides, lambda values: Preset)
    train = preset.train
    method = METHODS[preset.method.name].build(preset.method, DataFacts(32000, preset.data.sequence_length))
    masked = preset.method.name == "masked_diffusion"
    assert total_parameters(method.network, mask_row=masked) == parameters
    assert method.steps_for_flops(train.flops, train.batch_size, 2048) == steps
    assert train.optimizer.lr == 4e-4
    assert train.optimizer.lr * train.schedule.min_ratio == pytest.approx(4e-5)
    assert train.schedule.warmup_fraction == 0.01
