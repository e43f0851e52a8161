"""Starts `generative train` as a user would, watches its run folder, and kills it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.support.forked import Forked

Process = subprocess.Popen[str] | Forked

QUIET = ("evaluate.at_end=false", "sample.at_end=false")
"""For runs of which only the training is looked at."""

CONFIG = pathlib.Path(__file__).with_name("tiny.yaml")


def write_text(folder: pathlib.Path) -> None:
    """A few documents of a language with something to learn."""
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    rng = random.Random(0)
    for document in range(6):
        text = " ".join(rng.choice(words) for _ in range(400))
        (folder / f"{document}.txt").write_text(text)


class Run:
    """A run folder and the command that goes with it."""

    def __init__(self, texts: pathlib.Path, folder: pathlib.Path) -> None:
        self.folder = folder
        self.texts = texts

    def start(self, *overrides: str, before: Sequence[str] = (), verb: str = "train") -> Process:
        """The command in a process group of its own, forked from a process that has imported all that it needs itself.

        Args:
            overrides: `a.b=c`, and options.
            before: the words of a command that the interpreter is started by; it then imports for itself.
            verb: of the command line.
        """
        words = ["-m", "launch.cli", verb, str(CONFIG), f"run.dir={self.folder}"]
        words += [f"data.path={self.texts}", f"data.cache={self.texts}/cache", *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        if not before:
            return Forked(words, environment)
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*before, sys.executable, *words], env=environment, start_new_session=True, **pipe)

    def finish(self, *overrides: str, code: int = 0, timeout: float = 250) -> str:
        """Run to the end; its output."""
        process = self.start(*overrides)
        return self.end(process, code, timeout)

    def end(self, process: Process, code: int = 0, timeout: float = 250) -> str:
        try:
            output = process.communicate(timeout=timeout)[0]
        finally:
            kill_group(process)
        assert process.returncode == code, f"exit code {process.returncode}\n{output}\n{self.logs()}"
        return output

    def logs(self) -> str:
        parts = [
            f"--- {p}\n{p.read_text(errors='replace')[-1500:]}" for p in (self.folder / "logs").glob("*") if p.is_file()
        ]
        return "\n".join(parts)

    def wait_for(self, condition: Callable[[], object], process: Process, timeout: float = 200) -> object:
        """Poll until the condition gives something; fails if the process ends first."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        kill_group(process)
        raise AssertionError(f"waited {timeout} s in vain\n{self.logs()}")

    def read(self, name: str) -> dict:
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return {}

    def lines(self, name: str) -> list[dict]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def step(self) -> int:
        return max((line["step"] for line in self.lines_tolerantly() if line["kind"] == "train"), default=0)

    def lines_tolerantly(self) -> list[dict]:
        try:
            return self.lines("metrics.jsonl")
        except ValueError:
            return []

    def curve(self) -> list[tuple]:
        """(step, loss, gradient norm) of each training step, and the validations: all that a resume must reproduce."""
        keys = ("kind", "step", "loss", "grad_norm", "samples")
        return [tuple(line.get(key) for key in keys) for line in self.lines("metrics.jsonl")]

    def losses(self) -> list[float]:
        return [line["loss"]["denoise"] for line in self.lines("metrics.jsonl") if line["kind"] == "train"]


def kill_group(process: Process) -> None:
    """Nothing that the command started in its process group may outlive a test."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
