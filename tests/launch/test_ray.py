"""Real Ray, real signals, a fake task: each test starts `generative train` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from generative.training.runfolder import read_lines

pytest.importorskip("ray")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

HERE = Path(__file__).parent
PATIENCE = 150.0


class Train:
    """A running `generative train` with two Ray workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, *overrides: str, steps: int = 60, **environment: str) -> None:
        words = [f"run.dir={self.folder}", f"train.steps={steps}", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "drive.py"), "masked_diffusion/quickstart", *words],
            env=os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(self, happened: Callable[[], Any]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.lines("events")
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def end(self) -> tuple[int, str, str]:
        assert self.process is not None
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def lines(self, name: str) -> list[dict[str, Any]]:
        return read_lines(self.folder / f"{name}.jsonl")

    def step(self) -> int:
        return int(max((line["step"] for line in self.lines("metrics")), default=0))

    def workers(self, attempt: int = 1) -> list[int]:
        return [line["pid"] for line in self.lines("pids") if line["attempt"] == attempt]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Train]:
    run = Train(tmp_path / "run")
    yield run
    if run.process is not None and run.process.poll() is None:
        run.process.kill()
        run.process.communicate()


def test_a_killed_worker_is_replaced_and_a_mistake_is_told_once(run: Train) -> None:
    """The first group loses a worker; the second goes on, until one of its workers meets a mistake of the user's."""
    run.start(steps=2000, FAKE_MISTAKE_AT="40")
    run.until(lambda: run.step() >= 15 and len(run.workers()) == 2)
    os.kill(run.workers()[0], signal.SIGKILL)
    code, out, err = run.end()
    assert (code, err.splitlines()) == (2, ["shard 3 is damaged", "expected: a whole one", "to fix: prepare it again"])
    assert {line["attempt"] for line in run.lines("pids")} == {1, 2}
    assert sorted(line["rank"] for line in run.lines("pids") if line["attempt"] == 2) == [0, 1]
    assert {line["world"] for line in run.lines("pids")} == {2}
    (restart,) = [line for line in run.lines("events") if line["kind"] == "restart"]
    assert restart["message"].startswith("1 of 3: worker ")
    assert "died" in restart["message"]
    shown = [line.split()[0] for line in out.splitlines() if not line.startswith("train ")]
    assert shown[:3] == ["plan", "restart", "resume"]
    assert (run.folder / "logs" / "worker_1.log").exists()
    assert "died" in (run.folder / "logs" / "worker_errors.log").read_text()
    assert json.loads((run.folder / "status.json").read_text())["state"] == "failed"
