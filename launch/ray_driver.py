"""The process between `generative train` and Ray: it owns the connection to the cluster, and may die with it.

Ray ends a process whose node is gone, without a word. So the command itself never imports Ray: it looks after this
process, tells what became of it, and its messages stay its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch import ray_cluster
from launch.cluster_watch import ClusterLostError, ClusterWatch
from launch.imports import uncollected
from launch.ray_following import followed
from launch.ray_worker import descriptors_to
from launch.restarts import Groups

if TYPE_CHECKING:
    from launch.schema import RunConfig


@dataclass(frozen=True)
class Line:
    """What the command and this process tell each other.

    Args:
        go: the preparation is done: start workers.
        stop: the user wants to stop: start nothing again.
        joined: the cluster is there.
        result: None, or the error that ended it, is sent here at the end.
    """

    go: Event
    stop: Event
    joined: Event
    result: Connection


def drive(config: RunConfig, folder: Path, work: bytes, temporary: Path, line: Line) -> None:
    """Join or start the cluster while the command prepares, then let groups of workers train.

    Must run in the main thread: the processes of a local cluster are this thread's children and die with it, so that
    not even kill -9 leaves any behind.

    Args:
        work: what each worker does, pickled; only they open it, since it takes seconds of imports.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)  # the command decides what a signal means
    # A terminal, a scheduler or `timeout` signals the command's whole group. Ray's daemons would end at SIGTERM, before
    # the workers have saved.
    os.setpgid(0, 0)
    _chatter_to(folder / "logs" / "ray.log")
    watch = ClusterWatch(folder, ray_cluster.where(config.launch), line.stop.is_set, line.result.send)
    watch.begin(os.getppid())
    error: BaseException | None = None
    # A process that does not answer is given up as soon as one that does not take part in a collective.
    with ray_cluster.ray_environment(config.launch, config.parallel.timeout_seconds):
        try:
            _train(config, folder, work, temporary, line, watch)
        except SystemExit:
            ray_cluster.LOG.exception("Ray gives up this process, as it does when its node or the head is gone")
            error = ClusterLostError(
                f"{ray_cluster.where(config.launch)}: the Ray cluster, or its node here, has gone away",
                "a cluster that lives as long as the run",
                "give the same command again: the run goes on from its newest checkpoint",
            )
        except BaseException as raised:
            ray_cluster.LOG.exception("the run ends with an error")
            error = raised
        watch.end()
        line.result.send(_sendable(error))
        importlib.import_module("ray").shutdown()


def _train(config: RunConfig, folder: Path, work: bytes, temporary: Path, line: Line, watch: ClusterWatch) -> None:
    log = ray_cluster.LOG.info
    # Seconds of imports, done beside the start of the cluster.
    threading.Thread(target=_import, name="import", daemon=True).start()
    log("starting or joining the cluster")
    ray_cluster.connect(config.launch, temporary)
    watch.head = ray_cluster.address()
    line.joined.set()
    log("cluster is up")
    _import()
    log("Ray Train is imported")
    line.go.wait()
    log("preparation is done: starting the workers")
    with followed(config, folder):
        Groups(config, folder, work, watch).train()


def _import() -> None:
    """All that it takes to start workers."""
    with uncollected():
        importlib.import_module("launch.ray_group")


def _sendable(error: BaseException | None) -> BaseException | None:
    """Errors for the user as they are; others with their text only (they may not survive the way)."""
    from generative.errors import GenerativeError

    if error is None or isinstance(error, GenerativeError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _chatter_to(path: Path) -> None:
    """Send Ray's messages to a file: its loggers, and what C++ and child processes write to descriptors 1 and 2."""
    descriptors_to(path)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers: list[Any] = [logging.getLogger("ray"), ray_cluster.LOG]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    ray_cluster.LOG.setLevel(logging.INFO)
