from __future__ import annotations

import pytest
import torch

from generative.methods.sgmse.averages import averages, warmed_rate
from generative.training.ema import Ema


def test_published_averages(arrays, near) -> None:
    golden = arrays("ema")
    found = torch.stack(list(averages(golden["params"], golden["decay"].item())))
    near(found, golden["shadow"], 1e-6)


def test_rates_rise_to_the_final_one() -> None:
    assert warmed_rate(0.999, 1) == pytest.approx(2 / 11)
    assert warmed_rate(0.999, 8989) < 0.999
    assert warmed_rate(0.999, 8990) == pytest.approx(0.999)
    assert warmed_rate(0.999, 10**6) == 0.999


def test_the_trainers_average_is_the_same_where_the_warm_up_does_not_bind() -> None:
    rate = 0.18  # below 2/11, the rate of the first update
    steps = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    weight = steps[0].clone()
    ema = Ema({"w": weight}, rate)
    for count, wanted in enumerate(averages(steps, rate), start=1):
        weight.copy_(steps[count])
        ema.update(count)
        torch.testing.assert_close(ema.average["w"], wanted)
