"""Whether processes end that ought to."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil


def wait_until_gone(pids: Iterable[int], told: str, seconds: float = 20) -> None:
    """Fails, saying `told`, where one of the processes lives on; one that nobody has waited for (a zombie) is gone."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        while _lives(pid):
            assert time.monotonic() < deadline, told
            time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
