from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evaluation.reporting.folder import read_run
from launch import cli
from launch.status import find_runs
from launch.status_show import watch
from launch.status_table import styled, table

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
    return run.cells()


def test_a_running_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "masked_diffusion/1.1b", state="running", world=64)
    said = {
        "time": NOW - 72,
        "kind": "checkpoint",
        "step": 41_000,
        "message": f"saved {folder}/checkpoints/step_041000",
    }
    (folder / "events.jsonl").write_text(json.dumps({"message": "earlier"}) + "\n" + json.dumps(said) + '\n{"mess')
    assert cells(tmp_path) == {
        "run": "masked_diffusion/1.1b",
        "state": "running",
        "step": "41,200/256,478",
        "done": "16 %",
        "loss": "2.941",
        "speed": "1.21M tok/s",
        "workers": "64",
        "restarts": "2",
        "lost": "380 s",
        "ETA": "27 h",
        "last message": "saved checkpoints/step_041000 (1 min 12 s ago)",
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


def test_the_living_come_first_then_by_name(tmp_path: Path) -> None:
    states = {"z": "running", "c": "complete", "a": "failed", "b": "complete", "i": "interrupted", "e": "evaluating"}
    for name, state in states.items():
        make_run(tmp_path, name, state=state)
    make_run(tmp_path, "l", silent=500, state="running")
    assert [run.name for run in find_runs(tmp_path, NOW)] == ["z", "e", "l", "a", "i", "b", "c"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 300])
def test_the_table_fits_any_terminal(tmp_path: Path, width: int) -> None:
    for name in ("masked_diffusion/a_run_with_a_name_that_is_much_longer_than_a_column_should_be", "b"):
        folder = make_run(tmp_path, name, state="running", world=4)
        (folder / "events.jsonl").write_text(json.dumps({"time": NOW, "message": "a long message " * 5}) + "\n")
    runs = find_runs(tmp_path, NOW)
    lines = table(runs, width).split("\n\n")[0].splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:3] == ["run", "state", "step"]
    assert all("41,200/256,478" in line for line in lines[1:])
    assert lines[1].split()[0] == "b"
    shown = styled(runs, width).plain
    assert [line.rstrip() for line in shown.splitlines()] == table(runs, width).splitlines()
    assert ("a long message" in table(runs, width)) is True


def test_a_narrow_table_leaves_out_what_says_nothing_first(tmp_path: Path) -> None:
    make_run(tmp_path, "a", state="running", restarts=0, lost_seconds=0)
    assert "restarts" in table(find_runs(tmp_path, NOW), 120)
    narrow = table(find_runs(tmp_path, NOW), 80).splitlines()[0]
    assert "restarts" not in narrow
    assert "speed" in narrow
    make_run(tmp_path, "b", state="running")
    assert "restarts" in table(find_runs(tmp_path, NOW), 80).splitlines()[0]


def test_watching_tells_changes_and_ends_with_the_last_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", state="running", heartbeat=time.time())
    out, looks = io.StringIO(), []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        state = "running" if len(looks) < 3 else "complete"
        status = {"step": 10 * len(looks), "steps": 30, "state": state, "heartbeat": time.time()}
        (folder / "status.json").write_text(json.dumps(status))

    watch(str(tmp_path), out, sleep)
    lines = out.getvalue().splitlines()
    assert [line.split(" · ")[1:4] for line in lines[:-1]] == [
        ["a", "running", "step 41,200/256,478"],
        ["a", "complete", "step 30/30"],
    ]
    assert lines[-1] == "no run is alive"
    assert len(looks) == 3


def test_watching_ends_quietly_with_ctrl_c(tmp_path: Path) -> None:
    make_run(tmp_path, "a", state="running", heartbeat=time.time())

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    out = io.StringIO()
    watch(str(tmp_path), out, interrupt)
    assert len(out.getvalue().splitlines()) == 1


def test_json_has_all_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a", silent=1e6, state="interrupted")
    assert cli.main(["status", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["run"], found["state"], found["status"]["step"]) == ("a", "interrupted", 41_200)
    assert "go on with" in found["advice"]
    assert cli.main(["status", str(tmp_path), "--json", "--watch"]) == 2


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
