"""Schedules against the reference's numbers and closed forms; which parameters decay."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from generative.errors import ConfigError
from generative.training.config import OptimizerConfig, ScheduleConfig
from generative.training.engines import Engine
from generative.training.optimizers import build_optimizer, learning_rate, warmup_updates

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "masked_diffusion_lm" / "schedules.npz"


def test_cosine_equals_the_reference():
    golden = np.load(GOLDEN)
    peak, least, warmup, updates = golden["lr_cfg(max,min,warmup_iters,decay_iters)"]
    schedule = ScheduleConfig(name="cosine", warmup_steps=int(warmup), min_ratio=least / peak)
    rates = [learning_rate(schedule, peak, int(i), int(updates)) for i in golden["lr_iters"]]
    np.testing.assert_allclose(rates, golden["lr_values"], rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize(
    ("schedule", "update", "expected"),
    [
        ({"name": "constant", "warmup_steps": 4}, 2, 0.5),
        ({"name": "constant", "warmup_steps": 0}, 99, 1.0),
        ({"name": "linear", "warmup_steps": 20, "min_ratio": 0.0}, 60, 0.5),
        ({"name": "step", "warmup_steps": 0, "step_fraction": 0.25, "step_factor": 0.5}, 24, 1.0),
        ({"name": "step", "warmup_steps": 0, "step_fraction": 0.25, "step_factor": 0.5}, 25, 0.5),
        ({"name": "step", "warmup_steps": 0, "step_fraction": 0.25, "step_factor": 0.5}, 99, 0.125),
        ({"name": "step", "warmup_steps": 10, "step_updates": 30, "step_factor": 0.9}, 75, 0.81),
        ({"name": "wsd", "warmup_steps": 0, "decay_fraction": 0.2, "min_ratio": 0.0}, 79, 1.0),
        ({"name": "wsd", "warmup_steps": 0, "decay_fraction": 0.2, "min_ratio": 0.0}, 90, 0.5),
        # Of the 50 updates after the warm-up, half decay: the middle of the decay is 3/4 of the way.
        ({"name": "wsd", "warmup_steps": 50, "decay_fraction": 0.5, "min_ratio": 0.0}, 75, 1.0),
        ({"name": "wsd", "warmup_steps": 50, "decay_fraction": 0.4, "min_ratio": 0.0}, 90, 0.5),
        ({"name": "cosine", "warmup_steps": 0, "min_ratio": 0.2}, 50, 0.6),
        ({"name": "cosine", "warmup_steps": 0, "min_ratio": 0.2}, 500, 0.2),
    ],
)
def test_closed_forms(schedule, update, expected):
    assert learning_rate(ScheduleConfig(**schedule), 1.0, update, 100) == pytest.approx(expected)


@given(
    st.sampled_from(["cosine", "constant", "linear", "wsd"]), st.integers(1, 300), st.floats(0, 0.9), st.floats(0, 1)
)
def test_rates_rise_to_the_peak_and_never_leave_their_range(name, updates, fraction, least):
    schedule = ScheduleConfig(name=name, warmup_fraction=fraction, min_ratio=least)
    rates = [learning_rate(schedule, 2.0, i, updates) for i in range(updates + 1)]
    warmup = warmup_updates(schedule, updates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup] == pytest.approx(2.0)
    assert all(2.0 * least - 1e-9 <= rate <= 2.0 + 1e-9 for rate in rates[warmup:])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_warm_up_has_a_floor():
    schedule = ScheduleConfig(warmup_fraction=0.01, warmup_at_least=100)
    assert warmup_updates(schedule, 18_710) == 187
    assert warmup_updates(schedule, 500) == 100


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(4, 3), nn.LayerNorm(3)


def test_decay_exclusions():
    net = Net()
    groups = build_optimizer(OptimizerConfig(no_decay=("1d", "embedding.*")), net).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.0, 3)]
    groups = build_optimizer(OptimizerConfig(no_decay=("1d",), weight_decay=0.3), net).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.3, 1), (0.0, 2)]
    assert groups[0]["params"][0] is net.embedding.weight


def test_exclusion_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match="matches no parameter"):
        build_optimizer(OptimizerConfig(no_decay=("bais",)), Net())


def test_sgd_is_torchs():
    net = nn.Linear(2, 1)
    optimizer = build_optimizer(OptimizerConfig(name="sgd", lr=0.5, betas=(0.0, 0.9), weight_decay=0.0), net)
    before = net.weight.detach().clone()
    net(torch.tensor([[1.0, 2.0]])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(net.weight, before - 0.5 * torch.tensor([[1.0, 2.0]]))


def test_rates_are_factors_on_the_schedule_and_leave_the_decay_of_a_step():
    """Steps of Adam do not depend on the scale of gradients: the first is lr x rate in each coordinate."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    config = OptimizerConfig(lr=0.1, eps=1e-12, weight_decay=0.5, rates={"1.*": 0.25, "*": 1.0}, no_decay=("1d",))
    optimizer = build_optimizer(config, net)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for name, rate in (("0.weight", 1.0), ("1.weight", 0.25)):
        parameter = net.get_parameter(name)
        expected = before[name] * (1 - 0.1 * 0.5) - 0.1 * rate * parameter.grad.sign()
        torch.testing.assert_close(parameter.detach(), expected)
    engine = Engine("net", net, net, optimizer)
    engine.schedule, engine.peak_lr, engine.planned_updates = ScheduleConfig(name="constant", warmup_steps=0), 0.1, 10
    assert engine.set_lr(0.5) == pytest.approx(0.05)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx([0.0125, 0.05])
    with pytest.raises(ConfigError, match="rates: 'bais' matches no parameter"):
        build_optimizer(OptimizerConfig(rates={"bais": 0.5}), net)


@pytest.mark.parametrize("betas", [(0.9, 1.5), (1.0, 0.95), (-0.5, 0.9), (0.9, float("nan"))])
def test_decay_rates_that_no_optimizer_takes_are_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        OptimizerConfig(betas=betas)
