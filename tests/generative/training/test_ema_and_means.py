"""Averages of weights, and means over micro-batches and ranks."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from generative.method import Alone, Mean
from generative.training import means
from generative.training.ema import Ema


def test_ema_is_the_closed_form():
    """After weights w1 .. wn: rate^n w0 + (1 - rate) sum rate^(n-i) wi."""
    net = nn.Linear(1, 1, bias=False)
    values = [3.0, -1.0, 4.0, 0.5]
    net.weight.data.fill_(values[0])
    ema = Ema(dict(net.named_parameters()), 0.75)
    for step, value in enumerate(values[1:], start=1):
        net.weight.data.fill_(value)
        ema.update(step)
    expected = 0.75**3 * 3.0 + 0.25 * sum(0.75 ** (3 - i) * v for i, v in enumerate(values[1:], start=1))
    assert ema.average["weight"].item() == pytest.approx(expected)


def test_ramp_keeps_the_half_life_short_at_first():
    """A weight that jumps from 0 to 1 at step s: after half a ramp's worth of steps about half of it has arrived."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    ema = Ema(dict(net.named_parameters()), 0.5 ** (1 / 50), ramp=0.05)
    net.weight.data.fill_(1.0)
    ema.update(1)
    assert ema.average["weight"].item() == pytest.approx(1 - 0.5 ** (1 / 0.05))
    ema.average["weight"].fill_(0.0)
    for step in (200, 201, 202, 203, 204, 205, 206, 207, 208, 209):  # half-life 10 to 10.45
        ema.update(step)
    assert ema.average["weight"].item() == pytest.approx(0.5, abs=0.01)
    ema.average["weight"].fill_(0.0)
    ema.update(10**6)  # the rate itself from here on
    assert ema.average["weight"].item() == pytest.approx(1 - 0.5 ** (1 / 50))


def test_applied_swaps_and_swaps_back_even_after_an_error():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    ema = Ema(dict(net.named_parameters()), 0.5)
    net.weight.data.fill_(2.0)
    parameter = net.weight
    with contextlib.suppress(RuntimeError), ema.applied():
        assert net.weight.item() == 1.0
        assert net.weight is parameter
        raise RuntimeError
    assert net.weight.item() == 2.0
    assert ema.average["weight"].item() == 1.0


def test_averages_that_are_worn_already_stay_on_when_asked_for_again():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    ema = Ema(dict(net.named_parameters()), 0.5)
    net.weight.data.fill_(2.0)
    with ema.applied():
        with ema.applied():
            assert net.weight.item() == 1.0
        assert net.weight.item() == 1.0
    assert net.weight.item() == 2.0


@pytest.mark.parametrize("rate", [0.0, 1.0, 1.5])
def test_rates_outside_are_refused(rate):
    with pytest.raises(ValueError, match="EMA rate"):
        Ema(dict(nn.Linear(1, 1).named_parameters()), rate)


def test_means_add_up_before_they_are_divided():
    total: dict[str, Mean] = {}
    means.add(total, {"a": Mean.of(torch.tensor([1.0, 2.0]))})
    means.add(total, {"a": Mean.of(torch.tensor([9.0]))})
    assert means.value(total["a"]) == 4.0
    reduced = means.reduce(total, Alone())
    assert means.value(reduced["a"]) == 4.0


def test_curves_have_gaps_where_nothing_was_counted():
    curve = Mean(torch.tensor([2.0, 0.0]), torch.tensor([4.0, 0.0]))
    assert means.value(curve) == [0.5, None]
    assert means.value(Mean(torch.tensor(0.0), torch.tensor(0.0))) is None


def test_weighted_mean():
    mean = Mean.of(torch.tensor([1.0, 5.0, 9.0]), torch.tensor([True, True, False]))
    assert means.value(mean) == 3.0


def test_standard_error():
    assert means.standard_error([1.0]) is None
    assert means.standard_error([1.0, 3.0]) == pytest.approx(1.0)
