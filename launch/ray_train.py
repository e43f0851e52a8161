"""Workers under Ray Train: restarted from the newest checkpoint when one is lost, up to launch.max_restarts times."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from launch import ray_cluster
from launch.cluster_watch import ClusterLostError
from launch.console import Console, Follower
from launch.folder import outcome_state, read_json, update_status
from launch.ray_driver import Line, drive
from launch.stopping import StopRequest

if TYPE_CHECKING:
    from launch.run import Work
    from launch.schema import RunConfig

POLL_SECONDS = 0.2
QUIET_SECONDS = 5.0
"""After so long without a heartbeat of the workers the driver gives one itself: they are being started again."""
LEAVE_SECONDS = 20.0
"""How long the cluster may take to shut down after the run."""


class RayBackend:
    """One run on Ray. A process of its own starts the cluster while the command prepares, then drives the workers."""

    def __init__(self, config: RunConfig, folder: Path, work: Work, console: Console) -> None:
        ray_cluster.precheck(config.launch)
        self._config, self._folder, self._console = config, folder, console
        self._temporary = ray_cluster.temporary_folder()
        # Spawned, not forked: a forked child would share the locks and threads of this process.
        context = multiprocessing.get_context("spawn")
        self._result, sends = context.Pipe(duplex=False)
        self._line = Line(context.Event(), context.Event(), context.Event(), sends)
        # Unpickled by the workers alone: its modules take seconds to import, beside the start of the cluster.
        arguments = (config, folder, pickle.dumps(work), self._temporary, self._line)
        self._process = context.Process(target=drive, args=arguments, name="ray", daemon=True)

    def __enter__(self) -> RayBackend:
        self._process.start()
        self._line.result.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # After an error, waiting for Ray only to end it would keep the user from the message.
        self._process.join(0 if error is not None else LEAVE_SECONDS)
        self._process.kill()
        self._process.join()
        failed = error is not None and not isinstance(error, KeyboardInterrupt)
        ray_cluster.remove_temporary(self._temporary, self._folder / "logs" / "ray_session" if failed else None)

    def run(self, follower: Follower, request: StopRequest) -> None:
        """Let the workers train, show how it goes, pass on requests to stop.

        Raises:
            ResourceError: no cluster, not enough for all workers, or a node that cannot take part.
            RunFolderError: a node does not see the run folder.
            WorkersError: they failed too often.
            ClusterLostError: the whole cluster is gone.
            KeyboardInterrupt: stopped at once, without waiting for a checkpoint.
        """
        self._line.go.set()
        patience, told, began = float(self._config.parallel.patience_seconds), False, time.monotonic()
        while not self._result.poll(POLL_SECONDS):
            if time.monotonic() - began > ray_cluster.JOIN_SECONDS and not self._line.joined.is_set():
                raise ray_cluster.not_joined(self._config.launch)
            follower.poll()
            self._keep_alive()
            if not request.count:
                continue
            self._line.stop.set()
            if request.count > 1 or not follower.started or request.waited() > patience:
                raise KeyboardInterrupt
            if not told:
                told = True
                self._console.line("stop", "saving at the next step (the same signal again stops at once)")
        self._receive()

    def _receive(self) -> None:
        """The last word of the process, or what its silence means."""
        try:
            error = self._result.recv()
        except EOFError:
            error = ClusterLostError(
                f"{ray_cluster.where(self._config.launch)}: the Ray cluster is gone, or at least its node here",
                "a cluster that lives as long as the run",
                "look at logs/ray.log in the run folder, start the cluster again (or name another with launch.address) "
                "and give the same command again: the run goes on from its newest checkpoint",
            )
        if error is not None and not (isinstance(error, ClusterLostError) and self._workers_ended()):
            raise error

    def _workers_ended(self) -> bool:
        """Whether they came to an orderly end: then nothing is lost with the cluster."""
        return outcome_state(self._folder) in ("complete", "interrupted")

    def _keep_alive(self) -> None:
        """A heartbeat for times without workers."""
        status = read_json(self._folder / "status.json")
        if time.time() - float(status.get("heartbeat") or 0) > QUIET_SECONDS and self._process.is_alive():
            update_status(self._folder)
