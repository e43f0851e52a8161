"""A Ray cluster to train on: a local one made for the run (loopback only, gone with the driver), or one by address."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.errors import ResourceError
from launch.environment import cores
from launch.placement import Nodes, check_resources, seats
from launch.ray_slim import bare_head

if TYPE_CHECKING:
    from launch.sections import LaunchConfig

LOG = logging.getLogger("launch.ray")
"""Goes to logs/ray.log beside Ray's own messages; its times tell where a slow start comes from."""

CONNECT_SECONDS = 5.0
JOIN_SECONDS = 180.0
"""How long the start of a local cluster, or joining another one, may take."""
TELL_SECONDS = 3.0
NODES_AT_ONCE = 16
"""Of which it is asked at the same time whether they are there."""
LOCAL_WAIT_SECONDS = 15.0
"""On this machine no node can join; a group that has ended only needs a moment to give its cores back."""
PREFIX = "gen"
"""How the folders of local clusters begin, under /tmp."""

OBJECT_STORE_BYTES = 128 << 20
"""Workers exchange tensors through the process group, so Ray's own store stays almost empty."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # The driver watches for nodes that are taken away; Ray's own watcher would be one more process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # How soon the loss or the end of a worker is seen (2 s unless told).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # What the controller tells goes to logs/ray.log: it is in the driver's process.
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    # Relative paths in a configuration mean the folder of the command.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
NO_IDLE_WORKERS = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
"""For nodes: else each starts an idle process for each of its cores, however few workers there are to be."""
LOCAL_ENVIRONMENT = {
    **NO_IDLE_WORKERS,
    # Ray binds to the machine's outer address unless it is told that there are no other machines.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


@functools.cache
def _token() -> str:
    """Secret of the local clusters of this process; kept in its environment only. Ray reads it once per process."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def ray_environment(launch: LaunchConfig, timeout_seconds: float | None = None) -> Iterator[None]:
    """Environment variables for Ray and the processes that it starts; what the user has set stays.

    Args:
        timeout_seconds: after which a worker that does not answer is given up; None for Ray's own choice.
    """
    wanted = dict(ENVIRONMENT)
    if timeout_seconds is not None:
        wanted["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(timeout_seconds)
    wanted["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(launch.wait_seconds)
    if launch.address is None:
        wanted |= LOCAL_ENVIRONMENT
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            wanted["RAY_AUTH_TOKEN"] = _token()
    added = {key: value for key, value in wanted.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def precheck(launch: LaunchConfig) -> None:
    """What can be refused without starting anything.

    Raises:
        ResourceError: no Ray, too few cores, nobody at the address.
    """
    import importlib.util

    if importlib.util.find_spec("ray") is None:
        raise ResourceError(
            "launch.backend=ray needs Ray, which is not installed",
            expected="an installation with Ray, or a backend that needs none",
            remedy='pip install "generative[ray]", or give launch.backend=local',
        )
    if launch.address is None:
        if not launch.gpus_per_worker:
            check_resources(launch, {"this machine": {"CPU": cores(), "memory": _memory()}}, "this machine")
    elif launch.address != "auto":
        _check_answer(launch.address)


def _memory() -> float:
    import psutil

    return float(psutil.virtual_memory().total)


def answers(address: str) -> OSError | ValueError | None:
    """Whether somebody at host:port speaks HTTP/2, as the head of a cluster does; what went wrong where not.

    A head that is frozen, or another program, accepts connections too, and Ray would wait for it without an end.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":  # else it speaks only to those who know its certificate
                _greet(connection)
    except TimeoutError:
        return TimeoutError(f"no word within {CONNECT_SECONDS:g} s")
    except (OSError, ValueError) as error:
        return error
    return None


def _greet(connection: socket.socket) -> None:
    """HTTP/2's first frames (RFC 9113, 3.4): the client's preface and empty settings, then the server's settings."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
    frame = b""
    while len(frame) < 4 and (more := connection.recv(9)):
        frame += more
    if frame[3:4] != b"\4":
        raise ConnectionError("whoever listens there is no Ray head")


def _check_answer(address: str) -> None:
    if (error := answers(address)) is not None:
        raise ResourceError(
            f"no Ray cluster answers at launch.address={address} ({error})",
            expected="host:port of a cluster's head (port 6379 unless chosen), or auto",
            remedy="start it with `ray start --head`, correct the address, or give launch.address=null for a local one",
        ) from error


def connect(launch: LaunchConfig, temporary: Path) -> None:
    """Start the local cluster, or join the one at the address.

    Must run in a thread that lives as long as the cluster: its processes die with the thread that started them.

    Raises:
        ResourceError: no cluster there.
    """
    import ray

    common: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if launch.address is None:
        try:
            with _sigterm_kept(), bare_head():
                ray.init(
                    address="local",
                    num_cpus=cores(),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(temporary),
                    **common,
                )
        except Exception as error:  # Ray raises bare ones
            raise ResourceError(
                f"Ray did not start on this machine: {(str(error) or type(error).__name__).splitlines()[0]}",
                expected="a local cluster that is up within half a minute",
                remedy="give the same command again when the machine is less busy (see logs/ray.log in the run "
                "folder), or give launch.backend=local",
            ) from error
    else:
        try:
            with _sigterm_kept():
                ray.init(address=launch.address, **common)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ResourceError(
                f"the Ray cluster at launch.address={launch.address} cannot be joined: {str(error).splitlines()[0]}",
                expected="a running cluster of the same Ray version (and its token, where it asks for one)",
                remedy="look at the cluster, or give launch.address=null for a local one",
            ) from error


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """What SIGTERM means here stays: `ray.init` would have it end the process at once, before workers have saved."""
    if threading.current_thread() is not threading.main_thread():  # there Ray changes nothing either
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def not_joined(launch: LaunchConfig) -> ResourceError:
    """What is told where `connect` does not come to an end."""
    what = "the start of a Ray cluster on this machine" if launch.address is None else f"joining {where(launch)}"
    return ResourceError(
        f"{what} was waited for {JOIN_SECONDS:g} s in vain",
        expected="a cluster that lets a driver in within seconds",
        remedy="look at logs/ray.log in the run folder, at free memory and at the cluster's head; then give the same "
        "command again",
    )


def where(launch: LaunchConfig) -> str:
    """Names the cluster in messages."""
    return "this machine" if launch.address is None else f"the cluster at {launch.address}"


def address() -> str:
    """host:port of the head of the cluster that this process has joined."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def nodes(free: bool = False) -> Nodes:
    """What each living node of the cluster has, or has to spare; those that are being taken away are left out.

    So are those that take no connections: the head needs up to 15 s to count a node as lost, and workers that are sent
    there meanwhile are waited for in vain.
    """
    import ray
    from ray._private import state

    going = draining()
    alive = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]
    with ThreadPoolExecutor(NODES_AT_ONCE) as pool:
        there = pool.map(lambda node: _listens(node["NodeManagerAddress"], node["NodeManagerPort"]), alive)
    found = {node["NodeID"]: node["Resources"] for node, listens in zip(alive, there, strict=True) if listens}
    if free:
        spare = state.available_resources_per_node()
        found = {name: spare.get(name, {}) for name in found}
    return found


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def draining() -> set[str]:
    """Nodes that are about to be taken away (a preemption notice, a scale-down); empty where Ray cannot tell."""
    from ray._private import state

    with contextlib.suppress(Exception):  # not a public door
        return set(state.state.get_draining_nodes())
    return set()


def find_seats(launch: LaunchConfig, on_wait: Callable[[str], None]) -> list[str]:
    """The node of each worker, as soon as there is room for all of them.

    After launch.wait_seconds (at once where the cluster is this machine) fewer will do, but no fewer than
    launch.min_workers.

    Args:
        launch: what is asked for.
        on_wait: told once where nodes are missing or busy.

    Raises:
        ResourceError: too much of the cluster is missing or in use.
    """
    began = time.monotonic()
    told = False
    while True:
        free = nodes(free=True)
        found = seats(launch, free)
        if len(found) == launch.workers:
            return found
        waited = time.monotonic() - began
        if waited > launch.wait_seconds or (launch.address is None and waited > LOCAL_WAIT_SECONDS):
            check_resources(launch, nodes(), where(launch))
            check_resources(launch, free, f"the free part of {where(launch)}")
            return found
        if waited > TELL_SECONDS and not told:
            told = True
            on_wait(
                f"room for {len(found)} of {launch.workers} workers; waiting up to {launch.wait_seconds} s for more"
            )
        time.sleep(0.5)


def temporary_folder() -> Path:
    """A short path (Ray's sockets must fit into 107 characters) for one run alone, named by its driver."""
    base = Path("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())
    for folder in base.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base))


def remove_temporary(folder: Path, keep_logs_in: Path | None = None) -> None:
    """Delete what a local cluster left; its logs are kept where something went wrong."""
    if keep_logs_in is not None:
        for logs in folder.glob("session_2*/logs"):
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(logs, keep_logs_in, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
