"""Runs a function in several processes with a gloo group between them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMON = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "DS_ACCELERATOR": "cpu",
    "DEEPSPEED_LOG_LEVEL": "ERROR",
    "PYTHONPATH": str(ROOT),
}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@functools.cache
def _zygote() -> subprocess.Popen[str]:
    """Forks ranks; one for all groups of this test process."""
    command = [sys.executable, "-m", "tests.support.zygote"]
    environment = {**os.environ, **COMMON}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(**told: object) -> dict:
    zygote = _zygote()
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    zygote.stdin.write(json.dumps(told) + "\n")
    zygote.stdin.flush()
    return json.loads(zygote.stdout.readline())


def run_group(script: pathlib.Path, world: int, arguments: dict, timeout: float = 90.0) -> list[dict]:
    """Run `script ARGUMENTS_JSON` on `world` ranks; each prints one JSON line last, which is returned.

    Fails with the output of the first rank that failed; no process outlives the call.
    """
    port = str(free_port())
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder, str(rank)) for rank in range(world)]
        running = {}
        for rank, output in enumerate(outputs):
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                **COMMON,
            }
            told = {"script": str(script), "arguments": json.dumps(arguments), "output": str(output)}
            running[_ask(**told, environment=environment)["pid"]] = rank
        codes = _wait(running, timeout)
        said = [output.read_text() if output.exists() else "" for output in outputs]
    for rank, output in enumerate(said):
        assert codes[rank] is not None, f"rank {rank} did not end within {timeout:g} s\n{output[-3000:]}"
        assert codes[rank] == 0, output[-3000:]
    return [json.loads(output.strip().splitlines()[-1]) for output in said]


def _wait(running: dict[int, int], timeout: float) -> dict[int, int | None]:
    """Exit codes by rank; those that take too long are killed and have None."""
    deadline, codes = time.monotonic() + timeout, dict.fromkeys(running.values())
    waiting, late = dict(running), False
    while waiting:
        for pid, rank in list(waiting.items()):
            code = _ask(wait=pid)["code"]
            if code is not None:
                del waiting[pid]
                codes[rank] = None if late else code
        if waiting and time.monotonic() > deadline:
            late = True
            for pid in waiting:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return codes
