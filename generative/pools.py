"""What the processes of a pool have in common."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def start_in_pool() -> None:
    """At the start of a pool's process: an interruption is its parent's to deal with, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Pool processes outlive a killed parent, since they hold both ends of its pipes: watch it and leave."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
