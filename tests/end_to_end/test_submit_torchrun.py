"""`generative submit --backend torchrun` really trains here, and Ctrl-C saves."""

from __future__ import annotations

import functools
import os
import signal

import pytest

from tests.end_to_end.runs import QUIET, Run, write_text

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(400)]


def test_interrupt_saves_and_the_same_command_goes_on(tmp_path):
    write_text(tmp_path)
    run = Run(tmp_path, tmp_path / "run")
    submit = functools.partial(run.start, *QUIET, "--backend", "torchrun", verb="submit")
    process = submit()
    run.wait_for(lambda: run.step() >= 10, process)
    # As a terminal does it: to all of the foreground process group.
    os.killpg(process.pid, signal.SIGINT)
    assert "saving" in run.end(process, code=75)
    stopped_at = run.step()
    assert stopped_at < 120
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    output = run.end(submit(), code=0)
    assert "report.html" in output
    assert [line["step"] for line in run.lines("metrics.jsonl") if line["kind"] == "train"] == list(range(1, 121))
    assert [event["step"] for event in run.lines("events.jsonl") if event["kind"] == "resume"] == [stopped_at]
    events = run.lines("events.jsonl")
    assert "is complete already" in run.end(submit(), code=0)
    assert run.lines("events.jsonl") == events
