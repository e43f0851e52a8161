"""GANs with entropy and batch normalisation: the same numbers for any number of ranks and under each strategy."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("train_gan.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

R1 = {"adversarial": "non_saturating", "r1": 1.0, "dlle": {"weight": 0}, "iso": {"weight": 0}, "spectral_norm": False}
JOBS = {
    "mlp": {"network": "mlp"},
    "dcgan": {"network": "dcgan"},
    "relative": {"network": "mlp", "method": {"entropy": {"weight": 0.1, "relative": True, "form": "mean_log"}}},
    "released": {"network": "dcgan", "method": {"preset": "released", "buffer_columns": 10}},
    "r1": {"network": "dcgan", "method": R1},
    "relativistic": {"network": "mlp", "method": {**R1, "adversarial": "relativistic", "r2": 0.5}},
}
"""Batches of 10 over 4 ranks are unequal shares with padding."""


def close(found: object, wanted: object, rel: float) -> None:
    """Nested numbers agree; norms of gradients and losses near zero are compared on the scale of 1."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert found.keys() == wanted.keys()
        for key in wanted:
            close(found[key], wanted[key], rel)
    elif isinstance(wanted, list):
        for mine, theirs in zip(found, wanted, strict=True):  # type: ignore[call-overload]
            close(mine, theirs, rel)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=rel, abs=rel)
    else:
        assert found == wanted


@pytest.fixture(scope="module")
def alone() -> dict[str, dict]:
    return dict(zip(JOBS, run_group(SCRIPT, 1, {"jobs": list(JOBS.values())}, timeout=120)[0], strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_gives_the_same_numbers(alone: dict[str, dict], world: int) -> None:
    results = run_group(SCRIPT, world, {"jobs": list(JOBS.values())}, timeout=200)
    for name, found in zip(JOBS, results[0], strict=True):
        close(found, alone[name], 2e-5)
    for other in results[1:]:
        for mine, first in zip(other, results[0], strict=True):
            assert mine["buffers"] == first["buffers"]
            assert mine["memory"] == first["memory"]


@pytest.mark.parametrize("strategy", ["zero1", "zero2"])
def test_zero_gives_the_same_numbers(alone: dict[str, dict], strategy: str) -> None:
    names = ["mlp", "dcgan", "relative", "r1"]
    jobs = [JOBS[name] | {"strategy": strategy} for name in names]
    found = run_group(SCRIPT, 2, {"jobs": jobs}, timeout=200)[0]
    for name, one in zip(names, found, strict=True):
        assert "error" not in one, one
        close(one, alone[name], 2e-5)


@pytest.mark.parametrize("strategy", ["fsdp", "zero3"])
def test_penalties_are_refused_with_the_reason_where_weights_are_sharded(strategy: str) -> None:
    (found,) = run_group(SCRIPT, 2, {"jobs": [JOBS["r1"] | {"strategy": strategy}]})[0]
    assert "gradients of gradients" in found["error"]
    assert "parallel.strategy" in found["error"]


def test_a_run_goes_on_bit_for_bit_and_on_another_number_of_ranks(
    tmp_path: pathlib.Path, alone: dict[str, dict]
) -> None:
    job = JOBS["dcgan"] | {"steps": 5}
    (straight,) = run_group(SCRIPT, 2, {"jobs": [job]})[0]
    for world in (2, 1):
        kept = job | {"store": str(tmp_path / str(world))}
        (first,) = run_group(SCRIPT, 2, {"jobs": [kept | {"stop_at": 2}]})[0]
        assert first["state"] == "interrupted"
        (second,) = run_group(SCRIPT, world, {"jobs": [kept]})[0]
        if world == 2:
            assert first["curve"] + second["curve"] == straight["curve"]
            assert {k: second[k] for k in ("buffers", "weights", "memory")} == {
                k: straight[k] for k in ("buffers", "weights", "memory")
            }
        else:
            close(first["curve"] + second["curve"], alone["dcgan"]["curve"], 2e-5)
