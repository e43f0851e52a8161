from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from generative.errors import ConfigError
from launch import bench_all, cli
from launch.bench_table import Outcome
from launch.benchmarks import ALL

GOOD = """
import json, sys
print("progress of NAME", file=sys.stderr)
print("a table")
figures = {"figure": {"value": 2.0, "stderr": None, "n": 1, "goal": ">= 3"}}
result = {"name": "NAME", "seconds": 1.5, "environment": ENVIRONMENT, "figures": figures}
json.dump(result, open("FILE", "w"))
"""
WRONG = "import sys; print('busy'); sys.exit('no such data\\nexpected: some data\\nto fix: get it')"
FAULT = "raise ZeroDivisionError('nobody thought of this')"
KILLED = "import os; os.kill(os.getpid(), 9)"
STOPPED = "import sys; sys.exit(75)"
FORGETFUL = "print('done, and nothing written')"
HERE = {"versions": {"python": "3"}, "git": {"revision": "a", "dirty": False}, "host": "h", "gpus": [], "cores": 2}


class Programs:
    """Stand in for benchmarks: name -> program; counts their starts."""

    def __init__(self, **programs: str) -> None:
        self.programs, self.started = programs, list[str]()
        self.about: dict[str, Any] = {**HERE, "time": 5.0}

    def command(self, name: str, quick: bool, file: Path) -> list[str]:
        self.started.append(name)
        text = self.programs[name].replace("ENVIRONMENT", repr(self.about))
        return [sys.executable, "-c", text.replace("NAME", name).replace("FILE", str(file))]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs programs as benchmarks in GENERATIVE_BENCH=tmp_path; exit code and what --json has written."""
    monkeypatch.setattr(bench_all, "measured_on", lambda: HERE)
    monkeypatch.setenv("GENERATIVE_BENCH", str(tmp_path))

    def runs(programs: Programs, quick: bool = False) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(bench_all, "command", programs.command)
        code = bench_all.run_all(quick, tmp_path / "all.json", tmp_path / "all.md", list(programs.programs))
        return code, json.loads((tmp_path / "all.json").read_text())["benchmarks"]

    return runs


def test_every_benchmark_is_in_the_order_once_or_in_parts() -> None:
    parts = [part for whole in bench_all.IN_PARTS.values() for part in whole]
    assert sorted([*bench_all.ORDER, *bench_all.IN_PARTS]) == sorted(ALL)
    assert set(parts) <= set(bench_all.ORDER)


def test_the_command_is_that_of_one_benchmark(tmp_path: Path) -> None:
    words = bench_all.command("command_line", True, tmp_path / "one.json")
    done = subprocess.run([*words[:4], "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Usage: generative bench" in done.stdout
    assert words[4:] == ["command_line", "--json", str(tmp_path / "one.json"), "--quick"]
    assert bench_all.command("x", False, Path("y"))[-1] == "y"


def test_a_goal_that_is_missed_is_no_failure(run: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, told = run(Programs(one=GOOD, two=GOOD))
    assert code == 0
    assert {name: one["state"] for name, one in told.items()} == {"one": "done", "two": "done"}
    shown = capfd.readouterr()
    assert shown.out.count("NOT MET") == 2
    assert "a table" not in shown.out
    assert "progress of two" in shown.err
    assert (tmp_path / "all.md").read_text().count("NOT MET") == 2


def test_what_fails_is_told_and_the_rest_goes_on(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    code, told = run(Programs(wrong=WRONG, fault=FAULT, killed=KILLED, forgetful=FORGETFUL, good=GOOD))
    assert code == 1
    assert told["good"]["state"] == "done"
    assert told["wrong"] | {"seconds": 0, "time": 0} == {
        "state": "failed", "seconds": 0, "time": 0, "problem": "exit code 1: no such data", "figures": {}
    }  # fmt: skip
    assert told["fault"]["problem"].endswith("ZeroDivisionError: nobody thought of this")
    assert (told["killed"]["state"], told["killed"]["problem"]) == ("interrupted", "ended by SIGKILL")
    assert (told["forgetful"]["state"], told["forgetful"]["problem"]) == ("failed", "exit code 0, and no result")
    assert "exit code 1: no such data" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["done"], 0),
        (["done", "interrupted"], 75),
        (["interrupted", "not run"], 75),
        (["done", "failed", "not run"], 1),
    ],
)
def test_exit_codes(states: list[Any], code: int) -> None:
    assert bench_all.exit_code([Outcome("x", state) for state in states]) == code


def test_what_is_done_is_kept_and_the_rest_is_tried_again(run: Any, tmp_path: Path) -> None:
    programs = Programs(one=GOOD, two=STOPPED)
    assert run(programs)[0] == 75
    programs.programs["two"] = GOOD
    code, told = run(programs)
    assert code == 0
    assert programs.started == ["one", "two", "two"]
    assert told["one"]["figures"]["figure"]["value"] == 2.0
    assert run(programs, quick=True)[0] == 0
    assert programs.started[3:] == ["one", "two"]


@pytest.mark.parametrize(
    "change",
    [{"versions": {"python": "4"}}, {"git": {"revision": "b", "dirty": False}}, {"gpus": ["Card"]}, {"host": "other"}],
)
def test_other_code_and_another_machine_measure_anew(
    run: Any, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Programs(one=GOOD)
    run(programs)
    monkeypatch.setattr(bench_all, "measured_on", lambda: HERE | change)
    run(programs)
    assert programs.started == ["one", "one"]


def test_figures_of_changed_files_are_not_kept(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(one=GOOD)
    changed = {"git": {"revision": "a", "dirty": True}}
    programs.about |= changed
    monkeypatch.setattr(bench_all, "measured_on", lambda: HERE | changed)
    run(programs)
    run(programs)
    assert programs.started == ["one", "one"]


def test_a_result_of_before_does_not_stand_for_a_benchmark_that_fails(run: Any, monkeypatch: Any) -> None:
    run(Programs(one=GOOD))
    monkeypatch.setattr(bench_all, "measured_on", lambda: HERE | {"host": "other"})
    code, told = run(Programs(one=FORGETFUL))
    assert (code, told["one"]["state"]) == (1, "failed")


def test_ctrl_c_ends_the_whole_and_leaves_a_table(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Process:
        """Waits until somebody presses Ctrl-C."""

        def __init__(self, process: Any) -> None:
            self.process, self.stderr, self.first = process, process.stderr, True

        def wait(self, timeout: float | None = None) -> int:
            if self.first:
                self.first = False
                raise KeyboardInterrupt
            return int(self.process.wait(timeout))

        def send_signal(self, number: int) -> None:
            assert number == signal.SIGINT
            self.process.kill()

    real = subprocess.Popen
    slow = "import time; time.sleep(60)"
    programs = Programs(one=GOOD, two=slow, three=GOOD)

    def start(words: list[str], **options: Any) -> Any:
        process = real(words, **options)
        return Process(process) if slow in words else process

    monkeypatch.setattr(bench_all.subprocess, "Popen", start)
    began = time.monotonic()
    code, told = run(programs)
    assert time.monotonic() - began < 50
    assert code == 75
    assert [one["state"] for one in told.values()] == ["done", "interrupted", "not run"]
    assert "- not run: three\n" in (tmp_path / "all.md").read_text()


def test_the_name_all_runs_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(bench_all, "run_all", lambda *words, kept: asked.append((*words, kept)) or 75)
    files = ["--json", str(tmp_path / "a.json"), "--table", str(tmp_path / "a.md")]
    assert cli.main(["bench", "all", "--quick", *files]) == 75
    assert cli.main(["bench", "all", "--kept"]) == 75
    assert asked == [(True, tmp_path / "a.json", tmp_path / "a.md", False), (False, None, None, True)]
    assert cli.main(["bench", "all", "--table", str(tmp_path / "nope" / "a.md")]) == 2
    assert cli.main(["bench", "command_line", "--kept"]) == 2
    assert len(asked) == 2


def test_one_table_of_what_several_revisions_measured(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    programs = Programs(one=GOOD, two=GOOD, three=GOOD, four=STOPPED)
    run(programs)
    for name, change in (
        ("one", {"git": {"revision": "b", "dirty": False}, "cores": 1, "versions": {"python": "2"}}),
        ("three", {"host": "other"}),
    ):
        file = tmp_path / "all" / f"{name}.json"
        result = json.loads(file.read_text())
        file.write_text(json.dumps(result | {"environment": result["environment"] | change}))
    capfd.readouterr()
    assert bench_all.run_all(False, None, tmp_path / "all.md", list(programs.programs), kept=True) == 0
    assert programs.started == ["one", "two", "three", "four"]
    shown = capfd.readouterr()
    assert "three: left out, since it was measured on another machine (host)" in shown.err
    assert "otherwise one b, 1970-01-01, 1 core, python 2\n" in shown.out
    page = (tmp_path / "all.md").read_text()
    assert "- otherwise: one b, 1970-01-01, 1 core, python 2\n" in page
    assert "- not run: three, four\n" in page
    monkeypatch.delenv("GENERATIVE_BENCH")
    with pytest.raises(ConfigError, match="GENERATIVE_BENCH to name a folder"):
        bench_all.run_all(False, None, None, kept=True)
