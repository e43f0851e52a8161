"""The driver's eye on its cluster: is it there, and is a node of ours about to be taken away?"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from generative.errors import GenerativeError
from launch import ray_cluster
from launch.stopping import INTERRUPTED

LOOK_SECONDS = 2.0
LOST_SECONDS = 15.0
"""How long the cluster's head may be silent before the driver gives it up."""


class ClusterLostError(GenerativeError):
    """The whole cluster is gone; the run stands at its newest checkpoint."""

    exit_code = INTERRUPTED


class ClusterWatch:
    """Looks at the cluster every two seconds, in a thread of its own.

    Args:
        folder: the run folder; a preemption notice writes the file `stop` there, and the workers save and leave.
        where: names the cluster in messages.
    """

    def __init__(self, folder: Path, where: str) -> None:
        self._folder, self._where = folder, where
        self._ended = threading.Event()
        self._heard: float | None = None
        self.nodes: set[str] = set()
        """Ids of the nodes that the workers are on."""
        self.leaving: set[str] = set()
        """Those of them that are being taken away."""
        self.stop_asked = False
        """Whether the user wants the run to stop: then nothing is started again."""

    def begin(self, address: str) -> None:
        """From now on there is a cluster, whose head listens at host:port."""
        self._heard = time.monotonic()
        threading.Thread(target=self._look, args=(address,), name="cluster-watch", daemon=True).start()

    def end(self) -> None:
        """The cluster is no longer needed."""
        self._ended.set()

    def poll(self) -> None:
        """Raises ClusterLostError where the head has been silent for too long."""
        silent = time.monotonic() - self._heard if self._heard is not None else 0.0
        if silent > LOST_SECONDS and not self._ended.is_set():
            raise ClusterLostError(
                f"{self._where}: the Ray cluster is gone (no answer for {silent:.0f} s)",
                "a cluster that lives as long as the run",
                "start a cluster again (or name another with launch.address) and give the same command: the run goes "
                "on from its newest checkpoint",
            )

    def _look(self, address: str) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if ray_cluster.answers(address) is not None:
                continue
            self._heard = time.monotonic()
            self._heed_notices(ray_cluster.draining() & self.nodes)

    def _heed_notices(self, leaving: set[str]) -> None:
        """Ask the workers to save while their node is still there."""
        if leaving - self.leaving:
            self.leaving |= leaving
            with contextlib.suppress(OSError):
                (self._folder / "stop").touch()
