"""The paper's presets: sizes and step counts that the paper and its code name."""

from __future__ import annotations

import pytest

from generative.config import load_layers
from generative.method import DataFacts
from generative.methods.catalogue import METHODS
from generative.nets.accounting import total_parameters
from generative.training.config import TrainConfig


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
    values = load_layers(name, overrides).values
    train, section = TrainConfig(**values["train"]), values["method"]
    entry = METHODS[section["name"]]
    method = entry.build(entry.config()(**section), DataFacts(32000, values["data"]["sequence_length"]))
    masked = section["name"] == "masked_diffusion"
    assert total_parameters(method.network, mask_row=masked) == parameters
    assert method.steps_for_flops(train.flops, train.batch_size, 2048) == steps
    assert train.optimizer.lr == 4e-4
    assert train.optimizer.lr * train.schedule.min_ratio == pytest.approx(4e-5)
    assert train.schedule.warmup_fraction == 0.01
