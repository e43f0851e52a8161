"""Training in this process, or in the processes that torchrun started."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from launch.console import Console, Follower
from launch.stopping import StopRequest

if TYPE_CHECKING:
    from launch.run import Work
    from launch.schema import RunConfig

POLL_SECONDS = 0.25


class LocalBackend:
    """The one worker is this process: it trains in the main thread, a second thread shows the progress."""

    def __init__(self, config: RunConfig, folder: Path, work: Work, console: Console) -> None:
        self._config, self._folder, self._work, self._console = config, folder, work, console
        self._world = int(os.environ.get("WORLD_SIZE", 1))

    def run(self, follower: Follower, request: StopRequest) -> None:
        """Train; the worker saves and leaves on the first signal, and the second one ends all this."""
        request.end()
        asked = self._config.launch.workers
        if asked != self._world:
            self._console.line("note", f"launch.backend=local: {self._world} worker(s), not launch.workers={asked}")
        done = threading.Event()
        shower = threading.Thread(target=_show, args=(follower, done), name="progress", daemon=True)
        shower.start()
        try:
            self._work(self._config, self._folder, rank=0, world=self._world, attempt=attempt())
        finally:
            done.set()
            shower.join()


def attempt() -> int:
    """Number of this group of workers, from 1: torchrun counts how often it has started them again."""
    return 1 + int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def _show(follower: Follower, done: threading.Event) -> None:
    while not done.wait(POLL_SECONDS):
        follower.poll()
