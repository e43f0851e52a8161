from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from launch.bench_table import BEGINNING, END, QUICK_NOTE, Measured, Outcome, facts, markdown, text, write_table
from launch.folder import write_output

DAY = 86400.0
ABOUT: dict[str, Any] = {
    "versions": {"python": "3.11.7", "generative": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.0"},
    "git": {"revision": "0123456789abcdef", "dirty": False},
    "machine": "x86_64",
    "cores": 2,
    "memory_gb": 7.8,
    "gpus": [],
}
SPEED = {
    "speedup": {"value": 1.2, "stderr": 0.01, "n": 9, "goal": ">= 1.6", "low": 1.1, "high": 1.3, "unit": "x"},
    "seconds": {"value": 3.0, "stderr": None, "n": 1, "goal": None, "protocol": "one | thread, <b>"},
    "again": {"value": 4.0, "stderr": 0.5, "n": 3, "goal": "<= 5", "protocol": "one | thread, <b>"},
}


def measured(*outcomes: Outcome, quick: bool = False, **about: Any) -> Measured:
    return Measured(outcomes, ABOUT | about, quick)


WHOLE = measured(
    Outcome("speed", seconds=75.0, time=DAY * 20000, figures=SPEED),
    Outcome("broken", "failed", 3.0, DAY * 20001, problem="exit code 2: no data"),
    Outcome("later", "not run"),
)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")]


def test_every_figure_is_a_row_and_so_is_a_benchmark_without_any() -> None:
    rows = [cells(line) for line in markdown(WHOLE).splitlines() if line.startswith("|")]
    assert rows[0] == ["benchmark", "figure", "value", "unit", "95 % interval", "n", "goal", "reached"]
    assert rows[2:] == [
        ["`speed`", "`speedup`", "1.2", "x", "[1.1, 1.3]", "9", ">= 1.6", "NOT MET"],
        ["`speed`", "`seconds`", "3", "", "no error known", "1", "", ""],
        ["`speed`", "`again`", "4", "", "[3.02, 4.98]", "3", "&lt;= 5", "met"],
        ["`broken`", "", "", "", "", "", "", "failed after 3 s: exit code 2: no data"],
    ]


def test_figures_that_were_measured_alike_share_their_note() -> None:
    notes = [line for line in markdown(WHOLE).splitlines() if line.startswith("- `speed`")]
    assert notes == ["- `speed` `seconds`, `again`: one \\| thread, &lt;b>"]
    assert "speed seconds, again: one | thread, <b>" in text(WHOLE).splitlines()


def test_on_top_is_what_it_was_measured_on() -> None:
    assert facts(WHOLE) == {
        "measured": "2024-10-04 to 2024-10-05",
        "machine": "2 cores (x86_64), 7.8 GB, no GPU",
        "versions": "generative 0.1.0, torch 2.13.0+cpu, python 3.11.7",
        "revision": "0123456789",
        "not run": "later",
    }
    other = measured(gpus=["Card A", "Card A"], git={"revision": "feed", "dirty": True})
    assert facts(other)["machine"].endswith("GB, 2 x Card A")
    assert facts(other)["revision"] == "feed with changes that are not committed"
    assert facts(other)["measured"] == "nothing"
    assert facts(measured(git=None))["revision"] == "unknown"
    assert "not run" not in facts(measured(*WHOLE.outcomes[:2]))
    for page in (text(WHOLE), markdown(WHOLE)):
        assert page.index("no GPU") < page.index("speedup")
    assert "- time: speed 1 min 15 s, broken 3 s" in markdown(WHOLE)


def test_a_quick_run_says_that_it_is_no_measurement() -> None:
    quick = measured(*WHOLE.outcomes, quick=True)
    assert text(quick).startswith(QUICK_NOTE)
    assert markdown(quick).startswith(f"**{QUICK_NOTE}**")
    assert QUICK_NOTE not in text(WHOLE) + markdown(WHOLE)


def test_columns_stand_below_each_other_on_a_terminal() -> None:
    lines = text(WHOLE).splitlines()
    (head,) = [line for line in lines if line.startswith("benchmark ")]
    for name, value in (("value", "1.2"), ("goal", ">= 1.6"), ("95 % interval", "[1.1, 1.3]")):
        (row,) = [line for line in lines if "speedup" in line]
        assert row[head.index(name) :].startswith(value)
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("page", ["# Mine\n\n{0}\nold | figures\n{1}\nafter\n", "{0}\n{1}"])
def test_a_page_keeps_what_is_around_the_table(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(page.format(BEGINNING, END))
    before, after = page.split("{0}")[0], page.split("{1}")[1]
    for _ in range(2):
        write_table(file, WHOLE)
        assert file.read_text() == f"{before}{BEGINNING}\n\n{markdown(WHOLE)}\n{END}{after}"


def test_any_other_file_becomes_the_table(tmp_path: Path) -> None:
    file = tmp_path / "table.md"
    write_table(file, WHOLE)
    write_table(file, WHOLE)
    assert file.read_text() == markdown(WHOLE)
    write_table(None, WHOLE)
    assert list(tmp_path.iterdir()) == [file]


def test_what_came_of_a_benchmark_in_a_line() -> None:
    result = {"name": "speed", "seconds": 2.0, "environment": {"time": 5.0}, "figures": SPEED}
    assert Outcome.of(result) == Outcome("speed", "done", 2.0, 5.0, SPEED, environment={"time": 5.0})
    assert Outcome.of(result).counts() == "3 figures, 1 of 2 goals met"
    assert Outcome("empty").counts() == "0 figures"
    assert Outcome("x", "interrupted", 61.0, problem="Ctrl-C").ended() == "interrupted after 1 min 01 s: Ctrl-C"


def test_what_is_no_number_is_null_in_files_and_misses_its_goal(tmp_path: Path) -> None:
    """`rows_ratio_...` where no sampler reaches the quality: told so, and read again from what was kept."""
    figures = {"ratio": {"value": math.nan, "stderr": 0.1, "n": 3, "goal": "<= 0.25", "values": [1.0, math.inf]}}
    write_output(tmp_path / "kept.json", {"name": "speed", "seconds": 2.0, "figures": figures})
    kept = json.loads((tmp_path / "kept.json").read_text(), parse_constant=pytest.fail)
    assert kept["figures"]["ratio"]["value"] is None
    for outcome in (Outcome("speed", figures=figures), Outcome.of(kept)):
        assert outcome.counts() == "1 figures, 0 of 1 goals met"
        (row,) = [cells(line) for line in markdown(measured(outcome)).splitlines() if "`ratio`" in line]
        assert row[2:] == ["none", "", "no error known", "3", "&lt;= 0.25", "NOT MET"]
