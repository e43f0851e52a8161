"""Processes that are forked from one that has imported everything: seconds of CPU time saved for each."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.02
ONE_AT_A_TIME = threading.Lock()
"""Where threads start processes: an answer is that to its question, and there is one zygote and one folder."""


@functools.cache
def _zygote() -> subprocess.Popen[str]:
    """Forks processes; one for all tests of this process, with whose end its input ends."""
    command = [sys.executable, "-m", "tests.support.zygote"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@functools.cache
def _outputs() -> tempfile.TemporaryDirectory[str]:
    """Goes with this process."""
    return tempfile.TemporaryDirectory(prefix="forked-")


def _ask(**told: object) -> dict:
    with ONE_AT_A_TIME:
        zygote = _zygote()
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        try:
            zygote.stdin.write(json.dumps(told) + "\n")
            zygote.stdin.flush()
            return json.loads(zygote.stdout.readline())
        except BaseException:  # of a test that takes too long: an answer that nobody waits for is not the next one's
            zygote.kill()
            zygote.wait()
            _zygote.cache_clear()
            raise


class Forked:
    """A process in a group of its own, with what tests need of `subprocess.Popen`; errors go where output goes.

    Args:
        words: what would follow `python` in a command: a script or `-m` and a module, then arguments.
        environment: all of it.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        with ONE_AT_A_TIME:
            handle, name = tempfile.mkstemp(dir=_outputs().name)
        os.close(handle)
        self.words, self._output = list(words), pathlib.Path(name)
        self.returncode: int | None = None
        told = {"words": self.words, "environment": dict(environment), "folder": os.getcwd(), "output": name}
        self.pid: int = _ask(**told)["pid"]

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = _ask(wait=self.pid)["code"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.words, timeout or 0.0, self.said())
            time.sleep(POLL_SECONDS)
        return code

    def said(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self.said(), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """End its group, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(30)
