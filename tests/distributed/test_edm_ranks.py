"""EDM with dropout, augmentation and a power-function average: the same numbers for one and two ranks."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("train_edm.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]


def close(found, wanted):
    assert len(found["curve"]) == len(wanted["curve"])
    for mine, theirs in zip(found["curve"], wanted["curve"], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-4)
    for weights in ("trained", "ema"):
        assert found[weights] == pytest.approx(wanted[weights], rel=1e-3, abs=2e-4)


def test_ranks_micro_batches_and_strategies_agree(tmp_path: pathlib.Path) -> None:
    """Also a run that two ranks begin and one goes on with, average and all."""
    jobs = [{}, {"micro": 2, "recompute": True}]
    (alone, in_parts), *_ = run_group(SCRIPT, 1, {"jobs": jobs}, timeout=200)
    assert alone["trained"] != alone["ema"]
    close(in_parts, alone)
    store = str(tmp_path / "run")
    jobs = [{}, {"strategy": "fsdp"}, {"stop_at": 3, "store": store}]
    (two, sharded, stopped), other = run_group(SCRIPT, 2, {"jobs": jobs}, timeout=200)
    assert other[0]["curve"] == two["curve"]
    close(two, alone)
    close(sharded, alone)
    assert stopped["curve"] == two["curve"][:3]
    ((resumed,),) = run_group(SCRIPT, 1, {"jobs": [{"store": store}]}, timeout=200)
    close({**resumed, "curve": stopped["curve"] + resumed["curve"]}, alone)
