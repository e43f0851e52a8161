"""Runs a function in several processes with a gloo group between them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.support.forked import POLL_SECONDS, ROOT, Forked

COMMON = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "DS_ACCELERATOR": "cpu",
    "DEEPSPEED_LOG_LEVEL": "ERROR",
    "PYTHONPATH": str(ROOT),
}


FIRST_PORT, STREAMS, PORTS = 61000, 4, 1000
"""Above the ports that Linux gives to whoever asks for any: nobody takes one between the asking and the using."""
_numbers = itertools.count(101 * os.getpid())


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at; tests that run beside these (pytest-xdist) are given other ones."""
    stream = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % STREAMS
    for number in itertools.islice(_numbers, PORTS):
        port = FIRST_PORT + PORTS * stream + number % PORTS
        with socket.socket() as server, contextlib.suppress(OSError):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            return port
    raise OSError(f"all of {PORTS} ports are taken")


def run_group(script: pathlib.Path, world: int, arguments: dict, timeout: float = 90.0) -> list[dict]:
    """Run `script ARGUMENTS_JSON` on `world` ranks; each prints one JSON line last, which is returned.

    Fails with the output of the first rank that failed; no process outlives the call.
    """
    sizes = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks: list[Forked] = []
    with contextlib.ExitStack() as stack:
        for rank in map(str, range(world)):
            environment = {**os.environ, **COMMON, **sizes, **place, "RANK": rank, "LOCAL_RANK": rank}
            ranks.append(Forked([str(script), json.dumps(arguments)], environment))
            stack.callback(ranks[-1].close)
        late = _late(ranks, timeout)
        said = [rank.said() for rank in ranks]
    for number, (rank, output) in enumerate(zip(ranks, said, strict=True)):
        assert rank not in late, f"rank {number} did not end within {timeout:g} s\n{output[-3000:]}"
        assert rank.returncode == 0, output[-3000:]
    return [json.loads(output.strip().splitlines()[-1]) for output in said]


def run_groups(script: pathlib.Path, world: int, arguments: Mapping[str, dict], timeout: float = 90.0) -> dict:
    """`run_group` for each of some named arguments, all at once: for groups that wait more than they work."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        found = {name: pool.submit(run_group, script, world, given, timeout) for name, given in arguments.items()}
    return {name: one.result() for name, one in found.items()}


def _late(ranks: Sequence[Forked], timeout: float) -> list[Forked]:
    """Those that do not end in time, and are killed."""
    deadline = time.monotonic() + timeout
    while (running := [rank for rank in ranks if rank.poll() is None]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for rank in running:
        rank.send_signal(signal.SIGKILL)
        rank.wait(30)
    return running
