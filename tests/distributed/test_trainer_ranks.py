"""The same numbers for any number of ranks, and resume on any other number: real processes with gloo between them."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("train_toy.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


def curve(results, start=0):
    return [value for record in results[0]["losses"][start:] for value in record.values() if value is not None]


@pytest.fixture(scope="module")
def alone():
    return {method: run_group(SCRIPT, 1, {"method": method}) for method in ("regression", "duel")}


@pytest.mark.parametrize(("world", "micro"), [(2, None), (2, 2), (4, 2), (3, 3)])
def test_losses_agree_for_any_number_of_ranks_and_micro_batches(alone, world, micro):
    """10 samples over 3 or 4 ranks are unequal shares; micro-batches are padded."""
    results = run_group(SCRIPT, world, {"method": "regression", "micro": micro})
    assert curve(results) == pytest.approx(curve(alone["regression"]), rel=1e-5)
    assert len({r["weights"] for r in results}) == 1
    for mine, reference in zip(results[0]["validation"], alone["regression"][0]["validation"], strict=True):
        assert mine["fit"]["value"] == pytest.approx(reference["fit"]["value"], rel=1e-5)
        assert mine["fit"]["stderr"] == pytest.approx(reference["fit"]["stderr"], rel=1e-3)


@pytest.mark.parametrize("world", [2, 4])
def test_two_networks_with_a_frozen_third_agree(alone, world):
    results = run_group(SCRIPT, world, {"method": "duel"})
    assert curve(results) == pytest.approx(curve(alone["duel"]), rel=1e-5)
    assert results[0]["mean"] == pytest.approx(alone["duel"][0]["mean"], rel=1e-5)


def test_bf16_agrees_more_loosely(alone):
    results = run_group(SCRIPT, 2, {"method": "regression", "precision": "bf16"})
    one = run_group(SCRIPT, 1, {"method": "regression", "precision": "bf16"})
    assert curve(results) == pytest.approx(curve(one), rel=5e-3)
    assert curve(one) != pytest.approx(curve(alone["regression"]), rel=1e-6)  # it is not fp32


def test_two_ranks_resume_bit_identically_and_on_one_and_three(tmp_path, alone):
    straight = run_group(SCRIPT, 2, {"method": "duel"})
    for world in (2, 1, 3):
        store = str(tmp_path / str(world))
        first = run_group(SCRIPT, 2, {"method": "duel", "store": store, "stop_at": 3})
        assert [r["state"] for r in first] == ["interrupted"] * 2
        second = run_group(SCRIPT, world, {"method": "duel", "store": store})
        joined = curve(first) + curve(second)
        if world == 2:
            assert joined == curve(straight)
            assert second[0]["weights"] == straight[0]["weights"]
        else:
            assert joined == pytest.approx(curve(alone["duel"]), rel=1e-5)


def test_killed_rank_loses_nothing_but_time(tmp_path):
    arguments = {"method": "regression", "store": str(tmp_path), "every": 2, "steps": 8}
    straight = run_group(SCRIPT, 2, {"method": "regression", "steps": 8})
    with pytest.raises(AssertionError):
        run_group(SCRIPT, 2, {**arguments, "kill_after": 5})
    again = run_group(SCRIPT, 2, arguments)
    assert again[0]["step"] == 8
    assert again[0]["weights"] == straight[0]["weights"]
    assert curve(again) == curve(straight)[-len(curve(again)) :]
