"""A process that dies while it saves never leaves a folder that looks complete and is not, and loses no earlier one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("checkpoint_crash.py")


def run(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("world", [1, 2])
def test_death_at_every_single_file_operation(tmp_path: Path, world: int) -> None:
    result = run("every", tmp_path, world)
    assert result["problems"] == []
    assert result["deaths"] > 20


@pytest.mark.parametrize("world", [1, 2])
def test_kill_9_at_random_moments(tmp_path: Path, world: int) -> None:
    result = run("random", tmp_path, world, 25)
    assert result["problems"] == []
    assert result["saved"] > 1  # on a busy machine few saves come to their end
