from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from evaluation.canvas import canvas
from evaluation.harness.suite import Suite, SuiteKeys
from generative.config import known_keys
from launch import cli
from launch.bench_table import verdict
from launch.cluster_schema import ClusterFile
from launch.schema import KINDS

QUICKSTART = "masked_diffusion/quickstart"


def test_help_names_all_commands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from launch import cli; cli.main(['--help']);"
        "heavy = {'torch', 'ray', 'numpy', 'pydantic', 'rich', 'yaml', 'transformers'} & set(sys.modules);"
        "sys.exit(','.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("train", "status", "logs", "sample", "evaluate", "export", "import", "bench", "config", "data"):
        assert f"  {command} " in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2], "a first sentence too long for a terminal of 80 columns"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", QUICKSTART, "train.optimzer.lr=3"], "Did you mean train.optimizer"),
        (["config", "show", QUICKSTART, "train.steps=many"], 'train.steps: "many" is not valid (command line)'),
        (["config", "show", QUICKSTART, "train.batch_size=0"], "train.batch_size: 0 is not valid"),
        (["config", "show", QUICKSTART, "launch.workers=64"], "train.batch_size=16 is smaller than launch.workers=64"),
        (["train", "masked_diffusion/quickstrt"], f"Did you mean {QUICKSTART}?"),
        (["config", "schema", "train.optimzer"], "Did you mean train.optimizer"),
        (["bench", "trainr"], "Did you mean trainer?"),
        (["tarin", QUICKSTART], "generative: no such command 'tarin'. Did you mean 'train'?\nexpected: generative "),
        (["train"], "generative train: missing argument 'CONFIG'\nexpected: generative train [OPTIONS] CONFIG"),
        (["sample", "run", "--seeed", "3"], "no such option: --seeed (Possible options: --seed)"),
        (["sample", "run", "--count", "x"], "`generative sample --help` explains each"),
    ],
)
def test_users_mistakes_are_told_without_traceback(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert expected in shown.err
    assert "Traceback" not in shown.err
    assert [line.partition(":")[0] for line in shown.err.splitlines()[-2:]] == ["expected", "to fix"]
    assert shown.out == ""


def test_unknown_key_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {QUICKSTART}\ntrain:\n  optimzer: {{lr: 1}}\n")
    assert cli.main(["train", str(mine)]) == 2
    shown = capsys.readouterr().err
    assert f"train.optimzer.lr: unknown key ({mine} line 3). Did you mean train.optimizer.lr?\n" in shown


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "nothing/here", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_the_program_is_short_and_its_traceback_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, on_folder: Any, **settings: Any) -> int:
        (tmp_path / "logs").mkdir()
        on_folder(str(tmp_path))
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr("launch.run.train", fail)
    monkeypatch.setattr("launch.run_cli.current_run", [])
    assert cli.main(["train", QUICKSTART]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: nobody thought of this" in shown
    assert "Traceback" not in shown
    (saved,) = (tmp_path / "logs").iterdir()
    assert str(saved) in shown
    assert "ZeroDivisionError" in saved.read_text()


def test_show_prints_what_loads_back_to_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", QUICKSTART, "train.steps=7", "launch.workers=3"]) == 0
    first = capsys.readouterr().out
    again = tmp_path / "again.yaml"
    again.write_text(first)
    assert cli.main(["config", "show", str(again)]) == 0
    assert capsys.readouterr().out == first
    assert yaml.safe_load(first)["train"]["steps"] == 7


def test_schema_lists_every_key_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split("  ")[0] for line in lines if not line.startswith(" ")}
    mute = [one for one, after in zip(lines, [*lines[1:], ""], strict=True) if one[0] != " " and after[:1] != " "]
    assert [line for line in mute if ".name  (" not in line and "  (section" not in line] == []
    assert listed == {key for model in (*KINDS, ClusterFile, SuiteKeys[Suite]) for key in known_keys(model)}
    assert cli.main(["config", "schema", "launch.max_restarts"]) == 0
    assert "How often a group that lost a worker" in capsys.readouterr().out


def test_schema_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema", "--json"]) == 0
    kinds = json.loads(capsys.readouterr().out)["anyOf"]
    assert kinds
    assert all("train" in kind["properties"] for kind in kinds)


def test_list_shows_the_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "list"]) == 0
    cut = capsys.readouterr().out.splitlines()
    (line,) = [text for text in cut if text.startswith(f"{QUICKSTART} ")]
    assert "masked diffusion language model" in line
    assert not any(text.endswith("et al") for text in cut)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"value": 1.03, "stderr": 0.02, "goal": "<= 1.03"}, "met"),
        ({"value": 1.05, "stderr": 0.02, "goal": "<= 1.03"}, "missed, within its error"),
        ({"value": 1.05, "stderr": 0.02, "goal": "<= 1.0"}, "NOT MET"),
        ({"value": 1.05, "stderr": 0.02, "low": 1.04, "high": 1.2, "goal": "<= 1.03"}, "NOT MET"),
        ({"value": 1.05, "stderr": 0.001, "low": 1.0, "high": 1.2, "goal": "<= 1.03"}, "missed, within its error"),
        ({"value": 1.7, "stderr": 0.5, "low": 1.4, "high": 1.8, "goal": ">= 1.6"}, "met"),
        ({"value": 1.5, "stderr": 0.5, "low": 1.4, "high": 1.59, "goal": ">= 1.6"}, "NOT MET"),
        ({"value": 1.5, "stderr": 0.01, "low": 1.4, "high": 1.6, "goal": ">= 1.6"}, "missed, within its error"),
        ({"value": 1.5, "stderr": None, "goal": ">= 1.6"}, "NOT MET"),
        ({"value": float("nan"), "stderr": None, "goal": ">= 1.6"}, "NOT MET"),
        ({"value": 1.5, "stderr": None, "goal": None}, ""),
    ],
)
def test_a_goal_is_met_by_the_value_and_a_miss_that_its_error_explains_is_told(
    entry: dict[str, Any], expected: str
) -> None:
    assert verdict(entry) == expected


def test_bench_prints_goals_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {
        "overhead_ratio": {"value": 1.05, "stderr": 0.02, "n": 200, "goal": "<= 1.03"},
        "speedup": {"value": 1.2, "stderr": 0.01, "n": 200, "goal": ">= 1.6", "low": 1.1, "high": 1.3},
        "seconds": {"value": 3.0, "stderr": None, "n": 1, "goal": None},
    }
    asked = []
    module = SimpleNamespace(run=lambda quick: asked.append(quick) or figures)
    monkeypatch.setattr("launch.benchmarks.load", lambda name: module)
    file, table = tmp_path / "bench.json", tmp_path / "bench.md"
    assert cli.main(["bench", "trainer", "--quick", "--json", str(file), "--table", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("QUICK")
    lines = lines[lines.index("") + 1 :]
    assert lines[1].endswith(" missed, within its error")
    assert "[1.011, 1.089]" in lines[1]
    assert "[1.1, 1.3]" in lines[2]
    assert "no error known" in lines[3]
    assert lines[2].endswith("NOT MET")
    assert "met" not in lines[3]
    written = json.loads(file.read_text())
    assert asked == [True]
    assert written["name"] == "trainer"
    assert written["figures"] == figures
    assert written["environment"]["versions"]["python"].startswith("3.")
    assert written["quick"] is True
    assert written["seconds"] >= 0
    assert "| `trainer` | `overhead_ratio` | 1.05 |" in table.read_text()


def test_bench_draws_what_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["bench", "trainer", "--picture", str(tmp_path / "p.svg")]) == 2
    assert "one of the benchmarks that do: masked_diffusion" in capsys.readouterr().err
    assert cli.main(["bench", "all", "--picture", str(tmp_path / "p.svg")]) == 2
    module = SimpleNamespace(run=lambda quick: {"one": {"value": 1.0}}, draw=lambda figures: canvas()[0])
    monkeypatch.setattr("launch.benchmarks.load", lambda name: module)
    assert cli.main(["bench", "trainer", "--picture", str(tmp_path / "p.gif")]) == 2
    assert "a name that ends in .svg or .png" in capsys.readouterr().err
    assert cli.main(["bench", "trainer", "--quick", "--picture", str(tmp_path / "none" / "p.png")]) == 2
    assert cli.main(["bench", "trainer", "--quick", "--picture", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [["sample", "RUN"], ["evaluate", "RUN"], ["bench", "trainer"]])
def test_where_results_go_is_checked_before_the_work(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*arguments: Any, **settings: Any) -> Any:
        raise AssertionError("the work has begun")

    for name in ("launch.runs.sample_run", "launch.runs.evaluate_run"):
        monkeypatch.setattr(name, work)
    monkeypatch.setattr("launch.benchmarks.load", lambda name: SimpleNamespace(run=work))
    for path in (tmp_path / "nope" / "x.json", tmp_path):
        assert cli.main([*words, "--json", str(path)]) == 2
        assert f"--json {path}" in capsys.readouterr().err
    assert not (tmp_path / "nope").exists()
    (tmp_path / "file").touch()
    assert cli.main([*words, "--json", str(tmp_path / "file" / "x.json")]) == 2
