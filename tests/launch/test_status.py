from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evaluation.reporting.folder import read_run
from launch import cli
from launch.status import find_runs, table

NOW = 1_000_000.0


def make_run(root: Path, name: str, silent: float = 1.0, **fields: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    status = {"step": 41_200, "steps": 256_478, "loss": 2.941, "tokens_per_second": 1.21e6, "eta_seconds": 97_000}
    status |= {"restarts": 2, "lost_seconds": 380.4, "heartbeat": NOW - silent, "host": "node7"}
    (folder / "status.json").write_text(json.dumps(status | fields))
    return folder


def cells(root: Path) -> dict[str, str]:
    (run,) = find_runs(root, NOW)
    return dict(zip(("run", "state", "step", "loss", "speed", "restarts", "lost", "ETA"), run.cells(), strict=True))


def test_a_running_run(tmp_path: Path) -> None:
    make_run(tmp_path, "masked_diffusion/1.1b", state="running")
    assert cells(tmp_path) == {
        "run": "masked_diffusion/1.1b",
        "state": "running",
        "step": "41,200/256,478",
        "loss": "2.941",
        "speed": "1.21M tok/s",
        "restarts": "2",
        "lost": "380 s",
        "ETA": "27 h",
    }


@pytest.mark.parametrize("state", ["starting", "running", "evaluating"])
def test_a_silent_run_is_lost_and_says_how_to_go_on(tmp_path: Path, state: str) -> None:
    folder = make_run(tmp_path, "a", silent=400, state=state)
    (folder / "environment.json").write_text(json.dumps({"command": ["generative", "train", "my config"]}))
    assert cells(tmp_path)["state"] == "lost"
    assert cells(tmp_path)["ETA"] == "-"
    shown = table(find_runs(tmp_path, NOW))
    assert "no sign of life for 6 min 40 s (host node7); go on with: generative train 'my config'" in shown


@pytest.mark.parametrize("state", ["complete", "interrupted", "failed"])
def test_an_ended_run_is_not_lost_however_long_ago(tmp_path: Path, state: str) -> None:
    make_run(tmp_path, "a", silent=1e6, state=state)
    assert cells(tmp_path)["state"] == state
    assert cells(tmp_path)["speed"] == "-"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("interrupted", None),
        ("interrupted", "interrupted"),
        ("running", "interrupted"),
        ("running", "failed"),
        ("running", None),
        ("failed", None),
        ("evaluating", "complete"),
    ],
)
def test_the_report_says_the_same_state(tmp_path: Path, status: str, outcome: str | None) -> None:
    folder = make_run(tmp_path, "a", state=status)
    if outcome:
        (folder / "outcome.json").write_text(json.dumps({"state": outcome}))
    assert cells(tmp_path)["state"] == (outcome or status)
    for silent in (0.0, 1e5):
        beat = {"heartbeat": time.time() - silent}
        (folder / "status.json").write_text(json.dumps({"state": status, **beat}))
        (run,) = find_runs(tmp_path)
        assert read_run(folder).state == run.state


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", state="failed")
    (folder / "outcome.json").write_text(json.dumps({"problem": "loss is nan at step 12"}))
    assert "a: loss is nan at step 12" in table(find_runs(tmp_path, NOW))


def test_damaged_and_bare_status_files_are_shown_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "status.json").write_text('{"state": "runn')
    assert cells(tmp_path)["state"] == "unknown"


def test_runs_are_found_below_and_not_inside_runs(tmp_path: Path) -> None:
    for name in ("b", "group/a", "b/checkpoints/c", "b/nested"):
        make_run(tmp_path, name, state="running")
    assert [run.name for run in find_runs(tmp_path, NOW)] == ["b", "group/a"]


def test_missing_and_empty_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(tmp_path / "nothing")]) == 3
    assert "there is no such folder" in capsys.readouterr().err
    assert cli.main(["status", str(tmp_path)]) == 0
    assert "no runs" in capsys.readouterr().out


def test_it_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    make_run(tmp_path, "a", state="running")
    code = (
        f"import sys; from launch import cli; cli.main(['status', {str(tmp_path)!r}]);"
        "sys.exit(','.join({'torch', 'ray', 'numpy'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
