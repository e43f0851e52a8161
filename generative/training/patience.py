"""Waiting for a rank that is busy for longer than a collective may take, but not for one that is stuck."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

BEAT_SECONDS = 1.0


class Patience:
    """Lets ranks be busy with different things (samples on rank 0, a slow disk) and meet again afterwards.

    While a rank is busy, a thread of it gives the others a sign of life every second, over a process group of its own.
    So they can wait for `limit` seconds although no collective may take longer than `timeout`; a process that is killed
    is missed at once, and one that is stopped or frozen after `timeout`.

    Args:
        world: number of ranks. With one there is nobody to wait for.
        timeout: seconds without a sign of life after which a rank is given up.
        limit: seconds that a rank may be busy.
    """

    def __init__(self, world: int, timeout: float, limit: float) -> None:
        self._world, self._timeout, self._limit = world, timeout, limit
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if world > 1 else None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All ranks enter, each does its own work inside (or none), and all leave together.

        Raises:
            TimeoutError: a rank was busy for longer than `limit`, or gave no sign of life for `timeout` seconds.
        """
        if self._group is None:
            yield
            return
        done, failed = threading.Event(), list[BaseException]()
        beat = threading.Thread(target=self._beat, args=(done, failed), name="patience", daemon=True)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()
        if failed:
            raise TimeoutError(
                f"a worker was lost while others waited for it (limit {self._limit:g} s; {self._timeout:g} s without "
                f"a sign of life): {failed[0]}"
            ) from failed[0]

    def _beat(self, done: threading.Event, failed: list[BaseException]) -> None:
        deadline = time.monotonic() + self._limit
        try:
            while True:
                finished = torch.tensor([float(done.is_set())])
                dist.all_reduce(finished, group=self._group)
                if finished.item() == self._world:
                    return
                if not done.wait(BEAT_SECONDS) and time.monotonic() > deadline:
                    raise TimeoutError("busy for longer than parallel.patience_seconds")
        except BaseException as error:
            failed.append(error)
