"""A function over many items in processes of their own, of which any may be killed without loss of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from generative.pools import start_in_pool

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_pool(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int
) -> Iterator[tuple[ItemT, ResultT | None]]:
    """(item, result) in the order in which they are done; here for one worker, else in spawned processes.

    Items are taken as they are needed: at most two a worker are in memory. One that kills its process (PESQ is C code,
    and some files make it crash) must not take the others along: items under way are then tried again, each in a
    process of its own, and the result is None where that one dies too.
    """
    if workers <= 1:
        for item in items:
            yield item, function(item)
        return
    rest, running = iter(items), list[ItemT]()
    while True:
        try:
            for item, result in _collect(function, rest, running, workers):
                yield item, result
            return
        except BrokenProcessPool:
            again, running = running, []
            for item in again:
                yield item, _alone(function, item)


def _collect(
    function: Callable[[ItemT], ResultT], rest: Iterator[ItemT], running: list[ItemT], workers: int
) -> Iterator[tuple[ItemT, ResultT]]:
    """Results until the items end; `running` holds those that have been handed over and have no result yet."""
    pool = _pool(workers)
    futures: dict[Future[ResultT], ItemT] = {}
    try:
        while True:
            for item in islice(rest, 2 * workers - len(futures)):
                running.append(item)
                futures[pool.submit(function, item)] = item
            if not futures:
                return
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                result = future.result()
                item = futures.pop(future)
                # By identity: items hold arrays, which do not compare to one truth.
                running[:] = [other for other in running if other is not item]
                yield item, result
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(function: Callable[[ItemT], ResultT], item: ItemT) -> ResultT | None:
    pool = _pool(1)
    try:
        return pool.submit(function, item).result()
    except BrokenProcessPool:
        return None
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the caller may run threads (Ray, OpenMP), which do not survive a fork.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start)


def _start() -> None:
    start_in_pool()
    os.environ["OMP_NUM_THREADS"] = "1"
