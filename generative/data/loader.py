"""The next global batch, cut into ranks and micro-batches, and a cursor that any number of ranks can go on from.

Global batch number i holds the samples with counters g = i * batch_size .. of the whole run. A rank takes a contiguous
part of it. Which sample has counter g depends on (seed, g) alone, so world size, micro-batch and loader workers
change neither the samples nor their order, and the cursor of map-style data is the one number g.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from generative.data.partition import Cut, Share, cut_share
from generative.data.sources import Feed, MapFeed, Source, State, StreamingSource
from generative.errors import ConfigError, DataError, GenerativeError
from generative.method import Alone, Collectives

Item = tuple[int, Mapping[str, Any], Any]
"""(start of the global batch, arrays of the share, cursor after it), as tensors or numpy arrays."""


class _Items(IterableDataset[Any]):
    """Endless (start, arrays, cursor) of successive global batches; workers take turns, so their order is the same."""

    def __init__(self, feed: Feed, cut: Cut, batch_size: int, start: int) -> None:
        self.feed, self.cut, self.batch_size, self.start = feed, cut, batch_size, start

    def __iter__(self) -> Iterator[Item | GenerativeError]:
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        pack = _pack if info else _same
        for batch in itertools.count(number, workers):
            start = self.start + batch * self.batch_size
            try:
                arrays, cursor = self.feed.take(start, self.cut.first, self.cut.last)
            except GenerativeError as error:
                # Handed over as a value: a DataLoader would bury its message in a worker's traceback.
                yield error
                return
            packed = {name: pack(tensor) for name, tensor in arrays.items()}
            yield start, packed, None if cursor is None else pack(cursor)


def _same(item: Any) -> Any:
    return item


def _pack(tensor: Tensor) -> Any:
    """A small tensor as numpy: sent through a pipe it costs the receiver a tenth of a shared-memory handle."""
    return tensor.numpy() if tensor.nbytes < 1 << 20 else tensor


def _unpack(array: Any) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(array)


def _start_worker(number: int) -> None:
    """Signals to the whole process group must not stop a worker before the trainer has made its last checkpoint."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The first SIGTERM is for the trainer. A second one (sent when the loader is closed) ends a worker that hangs.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


class Loader(Iterator[Share]):
    """Endless iterator over this rank's shares of the global batches.

    Args:
        source: map-style samples, or a StreamingSource.
        batch_size: samples in a global batch, over all ranks.
        micro_batch_size: at most this many rows in a forward pass (None: the whole share).
        seed: of the order of samples.
        rank: this process among `world`.
        world: number of processes that share a batch.
        state: of a loader of any world size, batch size and number of workers: go on after the last batch it gave.
        workers: processes that read ahead (0: read in this process when asked).
        prefetch: batches that each of them reads ahead.

    Raises:
        ConfigError: impossible sizes, or a state made under another seed.
        DataError: no samples, or a state that belongs to other data.
    """

    def __init__(
        self,
        source: Source | StreamingSource,
        *,
        batch_size: int,
        micro_batch_size: int | None = None,
        seed: int,
        rank: int = 0,
        world: int = 1,
        state: Mapping[str, Any] | None = None,
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        self.batch_size, self.seed, self.world = batch_size, seed, world
        self.cut = Cut.of(batch_size, micro_batch_size, rank, world)
        _check_seed(state, seed)
        self.samples = 0 if state is None else int(state["samples"])
        self.feed = _open_feed(source, batch_size, seed, self.cut, state)
        self._cursor: Tensor | None = None
        self._state = dict(state) if state is not None else None
        items = _Items(self.feed, self.cut, batch_size, self.samples)
        self._items: Iterator[Item | GenerativeError] | None = _iterate(items, self.feed, workers, prefetch)

    def __next__(self) -> Share:
        if self._items is None:
            raise RuntimeError("the loader is closed")
        item = next(self._items)
        if isinstance(item, GenerativeError):
            self.close()
            raise item
        start, arrays, cursor = item
        self._cursor = None if cursor is None else _unpack(cursor)
        self.samples, self._state = start + self.batch_size, None
        return cut_share({name: _unpack(array) for name, array in arrays.items()}, start, self.cut)

    def state(self, collectives: Collectives | None = None) -> State:
        """The cursor after the shares handed out, equal on all ranks; batches read ahead do not count.

        All ranks must call it together, with their collectives; one process needs none.
        """
        if self._state is not None:
            return dict(self._state)
        cursor = self._cursor
        if cursor is not None:
            if self.world > 1 and collectives is None:
                raise RuntimeError("each rank knows a part of a stream's cursor: give the collectives of all ranks")
            cursor = (collectives or Alone()).sum(cursor)
        return {"samples": self.samples, "seed": self.seed, **self.feed.state(cursor)}

    def close(self) -> None:
        """End the loader's processes. It gives no more batches; its state can still be asked."""
        items, self._items = self._items, None
        shut_down = getattr(items, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_seed(state: Mapping[str, Any] | None, seed: int) -> None:
    if state is not None and state.get("seed") != seed:
        raise ConfigError(
            f"the checkpoint's data order was made with seed {state.get('seed')}, but the seed is {seed} now",
            expected="the seed that the run began with",
            remedy="restore the seed, or start a new run",
        )


def _open_feed(
    source: Source | StreamingSource, batch_size: int, seed: int, cut: Cut, state: Mapping[str, Any] | None
) -> Feed:
    if isinstance(source, StreamingSource):
        return source.feed(batch_size=batch_size, seed=seed, first=cut.first, last=cut.last, state=state)
    if len(source) < 1:
        raise DataError("the data has no samples", expected="at least one", remedy="check the data settings")
    return MapFeed(source, seed, state)


def _iterate(items: _Items, feed: Feed, workers: int, prefetch: int) -> Iterator[Item | GenerativeError]:
    if feed.max_workers is not None:
        workers = min(workers, feed.max_workers)
    if workers < 1:
        return iter(items)
    loader = DataLoader(
        items,
        batch_size=None,
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=max(prefetch, 1),
        worker_init_fn=_start_worker,
        # Its own generator leaves torch's global one untouched; spawn is safe where threads run already (Ray, OpenMP).
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context="spawn",
    )
    return cast("Iterator[Item | GenerativeError]", iter(loader))
