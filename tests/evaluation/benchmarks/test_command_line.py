from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.benchmarks import command_line


def test_each_start_is_a_process_and_the_first_is_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    code = f"import sys; open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    figure = command_line.help_seconds([sys.executable, "-c", code], 4)
    assert log.read_text() == 5 * "--help\n"
    assert (figure["n"], figure["unit"], figure["goal"]) == (4, "s", "<= 0.5")
    assert min(figure["values"]) <= figure["low"] <= figure["value"] <= figure["high"] <= max(figure["values"])


def test_the_command_of_this_environment_answers() -> None:
    done = subprocess.run([*command_line.command(), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "bench" in done.stdout


def test_commands_of_groups_are_found_and_the_slowest_is_told(tmp_path: Path) -> None:
    code = """
        import sys, time
        words = tuple(sys.argv[1:-1])
        below = {(): "train  Train it.\\n  data   All about data:\\n         see there.", ("data",): "prepare  Slowly."}
        print("Usage: that\\n\\n  Says a  lot.\\n\\n" + ("Commands:\\n  " + below[words] if words in below else ""))
        time.sleep(0.3 * (words == ("data", "prepare")))
    """
    program = [sys.executable, "-S", "-c", "\n".join(line[8:] for line in code.splitlines())]
    assert [*command_line.commands(program)] == [(), ("train",), ("data",), ("data", "prepare")]
    figure = command_line.slowest_help(program, 2)
    assert figure["protocol"].startswith("wall time of `generative data prepare --help`, the slowest of 3 commands")
    assert figure["value"] > 0.3
    assert (figure["n"], figure["unit"], figure["goal"]) == (2, "s", "<= 1")


def test_a_command_that_fails_gives_no_figure() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        command_line.help_seconds([sys.executable, "-c", "raise SystemExit(3)"], 2)
