"""What a list of configurations says of each."""

from __future__ import annotations

import pytest

from launch.cli import main
from launch.configs_cli import purpose


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One line only\n\n# other\nsteps: 1\n", "One line only"),
        ("# It takes\n# two lines. And more.\n", "It takes two lines"),
        ("# The 1.1B model of arXiv 2410.18514:\n#\n#   command\n", "The 1.1B model of arXiv 2410.18514"),
        (f"# {'long ' * 10}text (with, asides: inside): {'x ' * 40}\n", f"{'long ' * 10}text (with, asides: inside)"),
        (f"# {'word ' * 40}\n", f"{'word ' * 19}..."),
        ("steps: 1\n", ""),
        ("", ""),
    ],
)
def test_purpose_is_a_whole_sentence_or_clause(tmp_path, text, expected):
    (tmp_path / "a.yaml").write_text(text)
    assert purpose(tmp_path / "a.yaml") == expected


def test_keys_of_suites_are_listed(capsys):
    assert main(["config", "schema", "suite"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\nsuite.{key}  (" in shown for key in ("draws", "tasks.guidance", "path", "texts", "limit"))
