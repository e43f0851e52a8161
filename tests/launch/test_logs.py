from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from generative.errors import RunFolderError
from launch import cli
from launch.logs import Logs, show

T0 = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(T0 + seconds))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ray starts, worker 1 crashes at 20 s, the run goes on and ends."""
    (tmp_path / "logs").mkdir()
    events = [
        (5, "start", 0, "40 steps with 2 worker(s)"),
        (15, "checkpoint", 10, f"saved {tmp_path}/checkpoints/step_000010 (1.8 MB in 0.0 s)"),
        (21, "restart", 12, "1 of 3: worker 1 failed; all start again"),
        (40, "complete", 40, "training complete"),
    ]
    lines = [{"time": T0 + t, "kind": kind, "step": step, "message": text} for t, kind, step, text in events]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log(tmp_path, "ray.log", f"{at(1)},704 INFO launch.ray: starting\nno time on this one\n(raylet) A worker died\n")
    log(tmp_path, "worker_0.log", "W0305 12:00:16.123 torch: a warning\n", 16)
    log(
        tmp_path,
        "worker_1.log",
        "\x1b[31mTraceback\x1b[0m (most recent call last):\n  File x\nRuntimeError: boom\n",
        20,
    )
    log(tmp_path, "worker_errors.log", f"{at(20)} worker 1: RuntimeError: boom\nmore\n\n")
    status(tmp_path, "complete")
    return tmp_path


def log(folder: Path, name: str, text: str, changed: float = 0.0) -> None:
    path = folder / "logs" / name
    path.write_text(text)
    os.utime(path, (T0 + changed, T0 + changed))


def status(folder: Path, state: str) -> None:
    (folder / "status.json").write_text(json.dumps({"state": state, "heartbeat": time.time()}))


def shown(folder: Path, lines: int = 0, **options: Any) -> list[str]:
    out = io.StringIO()
    show(Logs(folder, **options), folder, lines, False, out, time.sleep)
    return out.getvalue().splitlines()


def test_all_logs_are_merged_by_time(run: Path) -> None:
    assert shown(run) == [
        "-- 2026-03-05",
        "12:00:01 ray       INFO launch.ray: starting",
        "12:00:01 ray       no time on this one",
        "12:00:01 ray       (raylet) A worker died",
        "12:00:05 event     start at step 0: 40 steps with 2 worker(s)",
        "12:00:15 event     checkpoint at step 10: saved checkpoints/step_000010 (1.8 MB in 0.0 s)",
        "12:00:16 worker 0  W0305 12:00:16.123 torch: a warning",
        "12:00:20 worker 1  Traceback (most recent call last):",
        "12:00:20 worker 1    File x",
        "12:00:20 worker 1  RuntimeError: boom",
        "12:00:20 worker 1  RuntimeError: boom",
        "12:00:20 worker 1  more",
        "12:00:21 event     restart at step 12: 1 of 3: worker 1 failed; all start again",
        "12:00:40 event     complete at step 40: training complete",
    ]
    assert shown(run, lines=2) == shown(run)[-2:]


def test_one_worker_with_its_errors(run: Path) -> None:
    assert {line.split()[2] for line in shown(run, worker=1)[1:]} == {"1"}
    assert len(shown(run, worker=1)) == 6
    assert shown(run, worker=0)[1:] == ["12:00:16 worker 0  W0305 12:00:16.123 torch: a warning"]
    with pytest.raises(RunFolderError, match="no log of worker 7") as caught:
        Logs(run, worker=7)
    assert "0, 1" in caught.value.expected


def test_errors_only(run: Path) -> None:
    text = "\n".join(shown(run, errors=True))
    assert "restart at step 12" in text
    assert "RuntimeError: boom" in text
    assert "(raylet) A worker died" in text
    for fine in ("starting", "a warning", "checkpoint", "complete"):
        assert fine not in text
    assert shown(run, errors=True, worker=0) == [f"nothing in the logs of {run}"]


def test_a_failed_run_ends_with_its_error_and_remedy(run: Path) -> None:
    outcome = {"state": "failed", "problem": "loss is nan", "expected": "a number", "remedy": "lower lr"}
    (run / "outcome.json").write_text(json.dumps(outcome))
    assert [line.split("  ", 1)[1].strip() for line in shown(run, errors=True)[-3:]] == [
        "failed: loss is nan",
        "expected: a number",
        "to fix: lower lr",
    ]


def test_following_shows_what_is_added_until_the_run_has_ended(run: Path) -> None:
    status(run, "running")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            with open(run / "logs" / "worker_0.log", "a") as file:
                file.write(f"{at(50)} new\nhalf a li")
        if len(looks) == 2:
            with open(run / "logs" / "worker_0.log", "a") as file:
                file.write("ne\n")
            log(run, "worker_2.log", f"{at(60)} a new worker\n")
            status(run, "complete")

    out = io.StringIO()
    show(Logs(run), run, 1, True, out, sleep)
    assert out.getvalue().splitlines() == [
        "12:00:40 event     complete at step 40: training complete",
        "12:00:50 worker 0  new",
        "12:00:50 worker 0  half a line",
        "12:01:00 worker 2  a new worker",
        "-- the run is complete",
    ]


def test_the_command(run: Path, tmp_path_factory: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["logs", str(run), "-n", "1", "--follow"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "-- the run is complete"
    assert cli.main(["logs", str(tmp_path_factory.mktemp("empty"))]) == 3
    assert "not a run folder" in capsys.readouterr().err
