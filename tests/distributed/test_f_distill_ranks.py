"""f-distill: losses, weights and ratio bins are the same for one and two ranks, sharded or not, and after a resume."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("train_f_distill.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]


def close(found, wanted):
    assert len(found["curve"]) == len(wanted["curve"])
    for mine, theirs in zip(found["curve"], wanted["curve"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
    assert found["bins"] == pytest.approx(wanted["bins"], rel=1e-3)
    for weights in ("trained", "ema"):
        assert found[weights] == pytest.approx(wanted[weights], rel=2e-3, abs=5e-4)


def test_ranks_and_strategies_agree(tmp_path: pathlib.Path) -> None:
    """Also a run that two ranks begin and one goes on with."""
    ((alone,),) = run_group(SCRIPT, 1, {"jobs": [{}]}, timeout=200)
    assert alone["trained"] != alone["ema"]
    assert all(value != 1.0 for value in alone["bins"])
    store = str(tmp_path / "run")
    jobs = [{}, {"strategy": "fsdp"}, {"stop_at": 3, "store": store}]
    (two, sharded, stopped), other = run_group(SCRIPT, 2, {"jobs": jobs}, timeout=200)
    assert other[0] == two
    close(two, alone)
    close(sharded, alone)
    assert stopped["curve"] == two["curve"][:3]
    ((resumed,),) = run_group(SCRIPT, 1, {"jobs": [{"store": store}]}, timeout=200)
    close({**resumed, "curve": stopped["curve"] + resumed["curve"]}, alone)
