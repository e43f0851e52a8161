from __future__ import annotations

import torch

from generative.training.ema import Ema


def test_published_averages(arrays, near) -> None:
    golden = arrays("ema")
    weight = golden["params"][0].clone()
    ema, found = Ema({"w": weight}, golden["decay"].item(), warmup=True), []
    for count, value in enumerate(golden["params"][1:], start=1):
        weight.copy_(value)
        ema.update(count)
        found.append(ema.average["w"].clone())
    near(torch.stack(found), golden["shadow"], 1e-6)


def test_the_warm_up_ends_where_its_rate_reaches_the_final_one() -> None:
    for step, rate in ((1, 2 / 11), (8989, 8990 / 8999), (8990, 0.999), (10**6, 0.999)):
        weight = torch.zeros(1, dtype=torch.float64)
        ema = Ema({"w": weight}, 0.999, warmup=True)
        ema.average["w"] = torch.ones(1, dtype=torch.float64)
        ema.update(step)
        torch.testing.assert_close(ema.average["w"].item(), rate, rtol=0, atol=1e-12)
