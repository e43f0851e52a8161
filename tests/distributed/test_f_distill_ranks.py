"""f-distill: losses, weights and ratio bins are the same for one and two ranks, sharded or not, and after a resume."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.rank_curves import Ranks

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
ranks = Ranks(pathlib.Path(__file__).with_name("train_f_distill.py"), 1e-3, (2e-3, 5e-4))

# so small that it clips fake score and heads, each by its own norm
JOINT = {"method": {"critic": "joint"}, "clip_norm": 0.02}


def test_ranks_and_strategies_agree(tmp_path: pathlib.Path) -> None:
    """Also a run that two ranks begin and one goes on with."""
    (alone,) = ranks(1, {})
    assert alone["trained"] != alone["ema"]
    assert all(value != 1.0 for value in alone["bins"])
    two, sharded, stopped = ranks(2, {}, {"strategy": "fsdp"}, {"stop_at": 3, "store": str(tmp_path)})
    ranks.close(two, alone)
    ranks.close(sharded, alone)
    assert stopped["curve"] == two["curve"][:3]
    ranks.close(ranks.resumed(1, tmp_path, stopped), alone)


def test_a_joint_critic_is_the_same_under_every_strategy(tmp_path: pathlib.Path) -> None:
    """Its parts are clipped each by its own norm, also of pieces; a resumed run is the same to the last bit."""
    alone, loose = ranks(1, JOINT, {**JOINT, "clip_norm": None})
    assert alone["trained"] != loose["trained"]
    stop = {**JOINT, "stop_at": 3, "store": str(tmp_path)}
    strategies = [{**JOINT, "strategy": name} for name in ("zero1", "zero2", "zero3", "fsdp")]
    two, *sharded, stopped = ranks(2, JOINT, *strategies, stop)
    for found in (two, *sharded):
        ranks.close(found, alone)
    assert ranks.resumed(2, tmp_path, stopped, **JOINT) == two


@pytest.mark.parametrize(
    "method",
    [
        {"steps": {"levels": [5.0, 0.5]}},
        {"steps": {"levels": [5.0, 0.5], "input": "noised_data"}, "ratio": {"recalibration": {}}},
        {"lora": {"rank": 2, "alpha": 2.0}},
        {"lora": {"rank": 2, "alpha": 2.0}, "backbone": "fake"},
    ],
    ids=["few steps", "noised data, calibrated", "lora", "lora, fake's features"],
)
def test_what_can_be_had_besides_is_the_same_for_two_ranks(method: dict[str, object]) -> None:
    (alone,) = ranks(1, {"method": method})
    (two,) = ranks(2, {"method": method})
    ranks.close(two, alone)
