"""One process at a time, and a lock that dies with its holder."""

import fcntl
import subprocess
import sys

import pytest

from generative.data.lock import locked

HOLD = """
import sys
from pathlib import Path
from generative.data.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def is_free(path):
    """Whether the lock could be had now, even a shared one."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_it_is_held_inside_and_free_outside(tmp_path):
    path = tmp_path / "x.lock"
    with locked(path) as held:
        assert held
        assert not is_free(path)
    assert is_free(path)
    with pytest.raises(ZeroDivisionError), locked(path):
        1 // 0  # noqa: B018
    assert is_free(path)


def test_who_comes_second_waits_for_a_killed_holder_only_until_it_is_dead(tmp_path):
    path = tmp_path / "x.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert not is_free(path)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            holder.kill()
            assert second.stdout.readline() == "held\n"
            second.kill()
    with locked(path) as held:
        assert held
