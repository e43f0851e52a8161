"""Processes of a pool end with the process that started them, however that ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.leftovers import wait_until_gone

SCRIPT = """
import json, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from generative.pools import start_in_pool

def work(_):
    os.kill(os.getpid(), signal.SIGINT)  # is not this process's to deal with
    return os.getpid()

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=start_in_pool)
    pid = pool.submit(work, 0).result()
    pool.submit(time.sleep, 600)
    print(json.dumps(pid), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    path = tmp_path / "script.py"  # a file, which spawned processes need
    path.write_text(SCRIPT)
    killed = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    wait_until_gone([json.loads(killed.stdout)], "a process outlived its killed parent")
