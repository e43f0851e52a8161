"""A library that falls back to another strategy without a word is found out before the first step."""

from __future__ import annotations

import pathlib

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("downgrade_rank.py")
CAME_UP = {"ddp": "none", "fsdp": "none", "zero1": "zero2", "zero2": "zero1", "zero3": "zero1"}


@pytest.mark.distributed
@pytest.mark.timeout(120)
def test_another_engine_than_asked_for_is_refused():
    for found in run_group(SCRIPT, 2, {"strategies": list(CAME_UP)}):
        for (asked, got), said in zip(CAME_UP.items(), found, strict=True):
            assert said == f"network 'net' came up under {got!r} instead of parallel.strategy={asked}"
