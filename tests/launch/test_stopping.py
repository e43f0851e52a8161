"""Signals in the driver."""

from __future__ import annotations

import signal
import sys
import types

import pytest

from launch.stopping import INTERRUPTED, StopRequest, exit_code


@pytest.mark.timeout(60, method="thread")  # the other method needs the alarm itself
def test_ray_cannot_abort_a_driver_that_is_saving(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    request = StopRequest(tmp_path)
    request.begin()
    signal.alarm(30)
    try:
        request.handle(signal.SIGTERM, None)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.alarm(0)
    assert (tmp_path / "stop").exists()


def test_interrupted_process_of_torchrun_is_not_started_again(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert [exit_code(code) for code in (0, 3, INTERRUPTED)] == [0, 3, INTERRUPTED]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert [exit_code(code) for code in (0, 3, INTERRUPTED)] == [0, 3, 0]
