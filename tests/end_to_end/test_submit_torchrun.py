"""`generative submit --backend torchrun` really trains here, and Ctrl-C saves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.runs import CONFIG, QUIET, Run, write_text

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(400)]


def test_interrupt_saves_and_the_same_command_goes_on(tmp_path):
    write_text(tmp_path)
    run = Run(tmp_path, tmp_path / "run")
    data = (f"data.path={tmp_path}", f"data.cache={tmp_path}/cache", f"run.dir={run.folder}", *QUIET)
    command = [sys.executable, "-m", "launch.cli", "submit", str(CONFIG), *data, "--backend", "torchrun"]

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipe)

    process = start()
    run.wait_for(lambda: run.step() >= 10, process)
    # As a terminal does it: to all of the foreground process group.
    os.killpg(process.pid, signal.SIGINT)
    assert "saving" in run.end(process, code=75)
    stopped_at = run.step()
    assert stopped_at < 120
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    output = run.end(start(), code=0)
    assert "report.html" in output
    assert [line["step"] for line in run.lines("metrics.jsonl") if line["kind"] == "train"] == list(range(1, 121))
    assert [event["step"] for event in run.lines("events.jsonl") if event["kind"] == "resume"] == [stopped_at]
