"""Ranks wait for one that is busy for longer than a collective may take, and not for one that is stuck."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("be_patient.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


def ended(**arguments):
    return [result["ended"] for result in run_group(SCRIPT, 2, {"stop": False, "limit": 60, "timeout": 4} | arguments)]


def test_a_busy_rank_is_waited_for():
    assert ended(busy=8) == ["together", "together"]


def test_a_rank_that_is_busy_for_too_long_is_given_up():
    busy, waiting = ended(busy=12, limit=2)
    assert "parallel.patience_seconds" in busy
    assert "lost" in waiting


def test_a_frozen_rank_is_given_up_after_the_time_out():
    assert "lost" in ended(busy=1, stop=True)[1]
