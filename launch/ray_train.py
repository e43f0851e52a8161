"""Workers under Ray Train: restarted from the newest checkpoint when one is lost, up to launch.max_restarts times."""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from launch import ray_cluster
from launch.cluster_watch import ClusterWatch
from launch.console import Console, Follower
from launch.folder import read_json, update_status
from launch.nodes import check_nodes
from launch.restarts import Groups
from launch.stopping import StopRequest, abandoned

if TYPE_CHECKING:
    from launch.run import Work
    from launch.schema import RunConfig

POLL_SECONDS = 0.2
QUIET_SECONDS = 5.0
"""After so long without a heartbeat of the workers the driver gives one itself: they are being started again."""


class RayBackend:
    """One run on Ray. A thread of its own starts the cluster while the driver prepares, then waits for the workers.

    The cluster's processes are children of that thread and die with it, so that not even kill -9 of the driver leaves
    any behind. Signals stay with the main thread.
    """

    def __init__(self, config: RunConfig, folder: Path, work: Work, console: Console) -> None:
        ray_cluster.precheck(config.launch)
        self._config, self._folder, self._work, self._console = config, folder, work, console
        self._go, self._cancelled = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._watch = ClusterWatch(folder, ray_cluster.where(config.launch))
        self._thread = threading.Thread(target=self._main, name="ray", daemon=True)
        self._temporary = ray_cluster.temporary_folder()
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> RayBackend:
        self._quiet.enter_context(ray_cluster.ray_environment(self._config))
        self._quiet.enter_context(ray_cluster.chatter_to(self._folder / "logs" / "ray.log"))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._cancelled.set()
        self._go.set()
        if error is not None and self._thread.is_alive():
            # Waiting for Ray to finish its start only to end it would keep the user from the message.
            abandoned.set()
        else:
            self._thread.join()
        failed = error is not None and not isinstance(error, KeyboardInterrupt)
        ray_cluster.remove_temporary(self._temporary, self._folder / "logs" / "ray_session" if failed else None)
        self._quiet.close()

    def run(self, follower: Follower, request: StopRequest) -> None:
        """Let the workers train, show how it goes, pass on requests to stop.

        Raises:
            ResourceError: not enough for all workers, or a node that cannot take part.
            WorkersError: they failed too often.
            ClusterLostError: the whole cluster is gone.
            KeyboardInterrupt: stopped at once, without waiting for a checkpoint.
        """
        self._go.set()
        patience, told = float(self._config.parallel.patience_seconds), False
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            follower.poll()
            self._keep_alive()
            self._watch.poll()
            if not request.count:
                continue
            self._watch.stop_asked = True
            if request.count > 1 or not follower.started or request.waited() > patience:
                raise KeyboardInterrupt
            if not told:
                told = True
                self._console.line("stop", "saving at the next step (the same signal again stops at once)")
        if self._error is not None:
            raise self._error

    def _keep_alive(self) -> None:
        """A heartbeat for times without workers."""
        status = read_json(self._folder / "status.json")
        if time.time() - float(status.get("heartbeat") or 0) > QUIET_SECONDS and self._thread.is_alive():
            update_status(self._folder)

    def _main(self) -> None:
        try:
            self._fit()
        except BaseException as error:
            self._error = error
        finally:
            import ray

            self._watch.end()
            ray.shutdown()

    def _fit(self) -> None:
        threading.Thread(target=_import_ray_train, name="import", daemon=True).start()
        ray_cluster.LOG.info("starting or joining the cluster")
        ray_cluster.connect(self._config.launch, self._temporary)
        self._watch.begin(ray_cluster.address())
        ray_cluster.LOG.info("cluster is up")
        _import_ray_train()
        ray_cluster.LOG.info("Ray Train is imported")
        if self._config.launch.address is not None:
            check_nodes(self._folder, ray_cluster.where(self._config.launch))
        self._go.wait()
        if not self._cancelled.is_set():
            ray_cluster.LOG.info("preparation is done: starting the workers")
            Groups(self._config, self._folder, self._work, self._watch, self._cancelled.is_set).train()


def _import_ray_train() -> None:
    """Seconds of imports; done beside the start of the cluster."""
    importlib.import_module("ray.train.torch")
