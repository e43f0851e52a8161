"""Ranks wait for one that is busy for longer than a collective may take, and not for one that is stuck."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_groups

SCRIPT = pathlib.Path(__file__).with_name("be_patient.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


CASES = {"busy": {"busy": 6}, "too busy": {"busy": 8, "limit": 2}, "frozen": {"busy": 1, "stop": True}}


@pytest.fixture(scope="module")
def ended():
    """How both ranks of each group ended; the groups wait at the same time."""
    asked = {name: {"stop": False, "limit": 60, "timeout": 3} | case for name, case in CASES.items()}
    return {name: [rank["ended"] for rank in ranks] for name, ranks in run_groups(SCRIPT, 2, asked).items()}


def test_a_busy_rank_is_waited_for(ended):
    assert ended["busy"] == ["together", "together"]


def test_a_rank_that_is_busy_for_too_long_is_given_up(ended):
    busy, waiting = ended["too busy"]
    assert "parallel.patience_seconds" in busy
    assert "lost" in waiting


def test_a_frozen_rank_is_given_up_after_the_time_out(ended):
    assert "lost" in ended["frozen"][1]
