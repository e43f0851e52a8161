"""Ranks that differ: in what they report, in how long their hooks take, in whether they have anything to validate."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group, run_groups

SCRIPT = pathlib.Path(__file__).with_name("corner_rank.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]


def run(world, *jobs, timeout=60):
    """What came of each job on each rank: [rank][job]."""
    return run_group(SCRIPT, world, {"jobs": jobs, "timeout": timeout})


def test_metrics_of_other_sizes_are_refused_on_every_rank_and_long_ones_summed_whole():
    """Between ranks that exchange unequal numbers of elements gloo aborts a process without a word."""
    jobs = [{"method": "fickle", "size": 1}, {"method": "fickle", "size": 400}, {"method": "curve"}]
    for rank, (short, long, curve) in enumerate(run(2, *jobs)):
        for result in (short, long):
            assert f"ConfigError: the ranks report different metrics; rank {rank} has" in result["state"]
        assert curve["metrics"]["fit"]["curve"] == [float(place) for place in range(300)]


def test_ranks_without_a_group_to_validate_change_nothing():
    """Two samples make two groups, for three ranks."""
    ((alone,),) = run(1, {"samples": 2})
    for (result,) in run(3, {"samples": 2}):
        (found,), (one,) = result["validation"], alone["validation"]
        assert found["loss"]["value"] == pytest.approx(one["loss"]["value"], rel=1e-5)
        assert found["loss"]["n"] == one["loss"]["n"] == 2
        assert found["metrics"] == pytest.approx(one["metrics"], rel=1e-5)


def test_what_takes_longer_than_a_collective_outside_of_steps_is_waited_for(tmp_path):
    """Hooks of rank 0 at the start and the end, and a long trace; a collective may take 3 s."""
    jobs = {"hooks": {"slow": 4}, "trace": {"slow_trace": 4, "folder": str(tmp_path)}}
    found = run_groups(SCRIPT, 2, {name: {"jobs": [job], "timeout": 3} for name, job in jobs.items()})
    assert {name: [result["state"] for (result,) in ranks] for name, ranks in found.items()} == {
        name: ["complete", "complete"] for name in jobs
    }
    kept = {path.name for path in (tmp_path / "profile").iterdir()}
    assert kept == {"step_000002_rank0.json.gz", "step_000002_rank0.txt"}
