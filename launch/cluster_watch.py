"""An eye on the cluster and on the command: are they there, and is a node of ours about to be taken away?"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from generative.errors import GenerativeError
from launch import ray_cluster
from launch.stopping import INTERRUPTED

LOOK_SECONDS = 0.5
"""How soon the death of the command is seen."""
ASK_SECONDS = 2.0
"""Time between two questions to the cluster's head."""
LOST_SECONDS = 15.0
"""How long the head may refuse connections before it is given up."""
FROZEN_SECONDS = 60.0
"""How long it may say nothing: a machine under load answers late."""


class ClusterLostError(GenerativeError):
    """The whole cluster is gone; the run stands at its newest checkpoint."""

    exit_code = INTERRUPTED


class ClusterWatch:
    """Looks around, in a thread of its own.

    Args:
        folder: the run folder; a preemption notice writes the file `stop` there, and the workers save and leave.
        where: names the cluster in messages.
        stop_asked: whether the user wants the run to stop: then nothing is started again.
        tell: how the command hears of the cluster's loss; after it this process ends.
    """

    def __init__(
        self, folder: Path, where: str, stop_asked: Callable[[], bool], tell: Callable[[Exception], None]
    ) -> None:
        self._folder, self._where, self._tell = folder, where, tell
        self._ended = threading.Event()
        self._asked = self._heard = time.monotonic()
        self.stop_asked = stop_asked
        self.head: str | None = None
        """host:port of the cluster's head, once there is a cluster."""
        self.nodes: set[str] = set()
        """Ids of the nodes that the workers are on."""
        self.leaving: set[str] = set()
        """Those of them that are being taken away."""

    def begin(self, parent: int) -> None:
        """From now on; this process ends when its `parent` is gone."""
        threading.Thread(target=self._look, args=(parent,), name="cluster-watch", daemon=True).start()

    def end(self) -> None:
        """The cluster is no longer needed."""
        self._ended.set()

    def _look(self, parent: int) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if os.getppid() != parent:
                os._exit(1)
            now = time.monotonic()
            if self.head is None:
                self._heard = now
            elif now - self._asked > ASK_SECONDS:
                self._asked = now
                self._ask(self.head)

    def _ask(self, head: str) -> None:
        error = ray_cluster.answers(head)
        if error is None:
            self._heard = time.monotonic()
            self._heed_notices(ray_cluster.draining() & self.nodes)
            return
        silent = time.monotonic() - self._heard
        limit = FROZEN_SECONDS if isinstance(error, TimeoutError) else LOST_SECONDS
        if silent > limit and not self._ended.is_set():
            self._tell(
                ClusterLostError(
                    f"{self._where}: the Ray cluster is gone (no answer for {silent:.0f} s)",
                    "a cluster that lives as long as the run",
                    "start a cluster again (or name another with launch.address) and give the same command: the run "
                    "goes on from its newest checkpoint",
                )
            )
            os._exit(1)

    def _heed_notices(self, leaving: set[str]) -> None:
        """Ask the workers to save while their node is still there."""
        if leaving - self.leaving:
            self.leaving |= leaving
            with contextlib.suppress(OSError):
                (self._folder / "stop").touch()
