"""A function over many small items, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_SLICE = 32
"""Items that a thread takes at a time: handing over a single one costs as much as reading a small image's header."""


def map_in_threads(
    threads: ThreadPoolExecutor, function: Callable[[ItemT], ResultT], items: Sequence[ItemT]
) -> Iterator[ResultT]:
    """Results in the order of `items`."""
    slices = [items[first : first + _SLICE] for first in range(0, len(items), _SLICE)]
    for results in threads.map(lambda some: [function(item) for item in some], slices):
        yield from results
