"""Power-function averages: closed forms, published exponents, and averages that are made afterwards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from generative.errors import CheckpointError
from generative.hub.export import choose_average
from generative.method import NetworkSpec, PowerProfile
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.ema import Ema, power_exponent
from generative.training.networks import build_engines, checkpoint_weights
from generative.training.post_hoc import (
    Profile,
    inner_products,
    post_hoc_average,
    post_hoc_weights,
    profile_error,
    weighted_sum,
)
from generative.training.state import entries, restore
from tests.support.toys import Regression


def tracked(values, width):
    """The average after each of the values, by the trainer's rule."""
    weight = torch.zeros(1)
    ema, found = Ema({"w": weight}, PowerProfile(width)), []
    for step, value in enumerate(values, start=1):
        weight.fill_(value)
        ema.update(step)
        found.append(ema.average["w"].item())
    return found


def test_published_exponents():
    assert power_exponent(0.05) == pytest.approx(16.972198602303447, rel=1e-12)
    assert power_exponent(0.10) == pytest.approx(6.937203937601809, rel=1e-12)
    for width in (0.01, 0.05, 0.2, 0.28):
        g = power_exponent(width)
        assert math.sqrt(g + 1) / ((g + 2) * math.sqrt(g + 3)) == pytest.approx(width, rel=1e-9)
    for wrong in (0.0, -0.1, 0.3):
        with pytest.raises(ValueError, match="width"):
            power_exponent(wrong)


def test_the_first_weights_are_forgotten_at_once():
    assert tracked([5.0], 0.1) == [5.0]


def test_the_average_follows_its_profile():
    """Of the steps' own numbers: the mean of p is (g + 1) / (g + 2) t, its deviation `width` t."""
    steps = 4000
    numbers = torch.arange(1.0, steps + 1)
    mean, square = tracked(numbers.tolist(), 0.1)[-1], tracked(numbers.square().tolist(), 0.1)[-1]
    g = power_exponent(0.1)
    assert mean / steps == pytest.approx((g + 1) / (g + 2), rel=1e-3)
    assert math.sqrt(square - mean**2) / steps == pytest.approx(0.1, rel=2e-2)


def test_inner_products_are_integrals():
    ones, others = [Profile(3.0, 2.0), Profile(5.0, 0.5)], [Profile(4.0, 1.5), Profile(2.0, 3.0)]
    places = (np.arange(200_000) + 0.5) * 5e-5 / 2

    def values(p):
        return np.where(places <= p.time, (p.exponent + 1) * places**p.exponent / p.time ** (p.exponent + 1), 0.0)

    wanted = [[(values(a) * values(b)).sum() * 2.5e-5 for b in others] for a in ones]
    np.testing.assert_allclose(inner_products(ones, others), wanted, rtol=1e-4)


def test_what_is_kept_is_found_again():
    kept = [Profile(t, g) for t in (100, 200, 300) for g in (17.0, 7.0)]
    np.testing.assert_allclose(post_hoc_weights(kept, kept[3]), [0, 0, 0, 1, 0, 0], atol=1e-9)
    with pytest.raises(ValueError, match="different"):
        post_hoc_weights([kept[0], kept[0]], kept[1])


def test_how_near_a_profile_comes():
    """The error is the length of the difference, by quadrature; more profiles come nearer."""
    kept, wanted = [Profile(t, g) for t in (2.0, 4.0) for g in (17.0, 7.0)], Profile(4.0, 4.0)
    weights = post_hoc_weights(kept, wanted)
    places = (np.arange(400_000) + 0.5) * 1e-5

    def values(p):
        return np.where(places <= p.time, (p.exponent + 1) * places**p.exponent / p.time ** (p.exponent + 1), 0.0)

    off = values(wanted) - sum(w * values(p) for w, p in zip(weights, kept, strict=True))
    found = profile_error(kept, wanted, weights)
    assert found == pytest.approx(math.sqrt((off**2).sum() / (values(wanted) ** 2).sum()), rel=1e-3)
    assert profile_error(kept, kept[1], post_hoc_weights(kept, kept[1])) < 1e-6
    more = [*kept, Profile(1.0, 7.0), Profile(3.0, 7.0)]
    assert profile_error(more, wanted, post_hoc_weights(more, wanted)) < found


@pytest.mark.parametrize(("width", "end"), [(0.15, 4000), (0.075, 4000), (0.10, 3100)])
def test_a_random_walk_averaged_afterwards(width, end):
    walk = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0).tolist()
    at = range(250, 4001, 250)
    kept, values = [], []
    for tracked_width in (0.05, 0.10):
        curve = tracked(walk, tracked_width)
        for step in at:
            kept.append(Profile(step, power_exponent(tracked_width)))
            values.append(torch.tensor([curve[step - 1]]))
    weights = post_hoc_weights(kept, Profile(end, power_exponent(width)))
    assert weights.sum() == pytest.approx(1, abs=1e-12)  # of what never changes, the average is itself
    direct = tracked(walk[:end], width)[-1]
    # Ends between two checkpoints are only as near as these are.
    spread = float(np.std(walk)) * (1 if end == 4000 else 10)
    assert weighted_sum(values, weights).item() == pytest.approx(direct, abs=2e-3 * spread)


class Averaged(Regression):
    def networks(self):
        return {"net": NetworkSpec(lambda: nn.Linear(3, 1), ema=(0.9, PowerProfile(0.05), PowerProfile(0.1)))}

    def updates(self):
        return []


def engines_of():
    return build_engines(Averaged(), TrainConfig(steps=1, seed=3), 1, Backend())[0]


def test_checkpoints_keep_profiles_and_give_others(tmp_path):
    """What is read back is what was kept; an average that was never tracked is near the one that would have been."""
    engines = engines_of()
    engine = engines["net"]
    weights = dict(engine.module.named_parameters())
    never = Ema(weights, PowerProfile(0.075))
    store = CheckpointStore(tmp_path, keep_last=50)
    for step in range(1, 401):
        for weight in weights.values():
            weight.data.fill_(math.cos(step / 60))
        for ema in (*engine.emas, never):
            ema.update(step)
        if step % 40 == 0:
            store.save(step, entries(engines, {}, 0, 1), {})
            store.wait()
    checkpoints = [store.open(step) for step in store.complete_steps()]
    assert len(checkpoints) == 10
    wide = engine.emas[2].average
    found = checkpoint_weights(checkpoints[-1], "net", choose_average(engine_spec().ema, "ema=power-0.1"))
    torch.testing.assert_close(found, wide, rtol=0, atol=0)
    again = engines_of()
    restore(checkpoints[-1], again, {})
    torch.testing.assert_close(again["net"].emas[2].average, wide, rtol=0, atol=0)
    made = post_hoc_average(checkpoints, "net", 0.075)
    assert made.keys() == engine.module.state_dict().keys()
    torch.testing.assert_close(made["weight"], never.average["weight"], rtol=0, atol=1e-2)
    with pytest.raises(CheckpointError, match="no network"):
        post_hoc_average(checkpoints, "critic", 0.075)


def engine_spec():
    return Averaged().networks()["net"]
