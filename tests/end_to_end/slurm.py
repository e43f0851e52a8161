"""A Slurm for one machine: srun, scontrol, sbatch and squeue as small programs that run everything here."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.end_to_end.runs import kill_group

SRUN = """
import os, signal, subprocess, sys
words = sys.argv[1:]
options = {}
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    options[name] = value
assert options["--ntasks-per-node"] == "1" and "--cpus-per-task" in options, options
count = int(options["--nodes"])
tasks = [subprocess.Popen(words, env={**os.environ, "SLURM_NODEID": str(node)}) for node in range(count)]
def forward(number, frame):
    for task in tasks:
        task.send_signal(number)
signal.signal(signal.SIGTERM, forward)
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """
import os, pathlib, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print(sys.argv[3].replace(",", "\\n"))
else:
    with open(os.environ["FAKE_SLURM"] + "/requeued", "a") as log:
        log.write(" ".join(sys.argv[1:]) + "\\n")
"""
SBATCH = """
import os, pathlib, sys
option, script = sys.argv[1:]
assert option == "--parsable" and os.path.isfile(script), sys.argv
pathlib.Path(os.environ["FAKE_SLURM"], "submitted").write_text(script)
print(4242)
"""


def _program(folder: pathlib.Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


class FakeSlurm:
    """The commands in a folder that goes first on PATH, and the jobs that were submitted with them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("sbatch", SBATCH), ("squeue", "")):
            _program(folder, name, f"#!{sys.executable}{text}\n")
        for name, words in (
            ("python", ""),
            ("generative", "-m launch.cli"),
            ("ray", "-c 'import sys; from ray.scripts.scripts import main; sys.argv[0] = \"ray\"; main()'"),
        ):
            _program(folder, name, f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        self.environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "FAKE_SLURM": str(folder),
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, *words: str) -> str:
        """`generative submit`; what it printed."""
        command = [sys.executable, "-m", "launch.cli", "submit", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def requeued(self) -> list[str]:
        path = self.folder / "requeued"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, nodes: int, restarts: int = 0) -> subprocess.Popen[str]:
        """Run the submitted script as Slurm would."""
        script = (self.folder / "submitted").read_text()
        job = {
            # The script's ports follow from it: these are below those that Linux gives to whoever asks for any.
            "SLURM_JOB_ID": str(10_000 + os.getpid() % 2_500),
            "SLURM_JOB_NODELIST": ",".join(f"node{number}" for number in range(nodes)),
            "SLURM_RESTART_COUNT": str(restarts),
        }
        return subprocess.Popen(
            ["bash", script],
            env={**self.environment, **job},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def finish(
        process: subprocess.Popen[str], code: int, timeout: float = 250, when: Callable[[], object] | None = None
    ) -> str:
        """Wait for the job's end (after USR1 as soon as `when` holds); its output."""
        try:
            deadline = time.monotonic() + timeout
            while when is not None and not when():
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, "the moment to warn the job never came"
                time.sleep(0.02)
            if when is not None:
                process.send_signal(signal.SIGUSR1)
            output = process.communicate(timeout=timeout)[0]
        finally:
            kill_group(process)
        assert process.returncode == code, f"exit code {process.returncode}\n{output}"
        return output
