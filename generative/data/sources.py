"""What a loader asks of its data: samples by number, or a stream that makes a feed of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from generative.data.order import Indices, Order
from generative.data.partition import Arrays
from generative.errors import DataError

State = dict[str, Any]


class Source(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Indices) -> Arrays:
        """Samples of `indices` int64[B], stacked: each tensor has B rows."""
        ...


@runtime_checkable
class RenewedSource(Protocol):
    """Samples by number that are drawn anew in each epoch: crops, mixtures. `fetch` draws those of epoch 0, seed 0."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Indices) -> Arrays:
        """See Source."""
        ...

    def fetch_anew(self, indices: Indices, epochs: Indices, seed: int) -> Arrays:
        """Samples of `indices` int64[B], each as drawn in its epoch int64[B] under the seed of the run."""
        ...


def checked(indices: Indices, count: int) -> Indices:
    """Sample numbers as int64[B]. Raises IndexError where one is not in 0 .. count-1."""
    numbers = np.asarray(indices, dtype=np.int64)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < count):
        raise IndexError(f"sample numbers must lie in 0 .. {count - 1}")
    return numbers


class Feed(Protocol):
    """Hands out samples by their global counters, batch after batch. Picklable as long as it was not used."""

    @property
    def max_workers(self) -> int | None:
        """How many loader processes may share it (None: any number)."""
        ...

    def take(self, start: int, first: int, last: int) -> tuple[Arrays, Tensor | None]:
        """Samples at positions first .. last-1 of the global batch that begins at counter `start`.

        Returns their tensors and the cursor after this global batch: None where the counter says it all, else
        int64[...] that is zero wherever another rank knows it, so that the sum over ranks is the whole cursor.
        """
        ...

    def state(self, cursor: Tensor | None) -> State:
        """What a checkpoint must hold besides the counter, from a cursor summed over ranks (None: nothing read)."""
        ...


@runtime_checkable
class StreamingSource(Protocol):
    """Samples that can only be read in order: it makes a feed of its own."""

    def feed(self, *, batch_size: int, seed: int, first: int, last: int, state: Mapping[str, Any] | None) -> Feed:
        """The feed of a rank that takes positions first .. last-1 of every global batch."""
        ...


class MapFeed:
    """Feed of a source with random access: sample g is the one that the keyed permutation of its epoch puts there."""

    max_workers: int | None = None

    def __init__(self, source: Source, seed: int, state: Mapping[str, Any] | None) -> None:
        self.source, self.order = source, Order(len(source), seed)
        self.renewed = source if isinstance(source, RenewedSource) else None
        stored = len(source) if state is None else state.get("length")
        if stored != len(source):
            raise DataError(
                f"the checkpoint's data cursor belongs to data with {stored} samples, but there are {len(source)} now",
                expected="the same data, sequence length and stride as before",
                remedy="restore the data settings of the run, or start a new run on the new data",
            )

    def take(self, start: int, first: int, last: int) -> tuple[Arrays, None]:
        """See Feed."""
        counters = np.arange(start + first, start + last, dtype=np.int64)
        indices = self.order[counters]
        if self.renewed is not None:
            return self.renewed.fetch_anew(indices, counters // self.order.n, self.order.seed), None
        return self.source.fetch(indices), None

    def state(self, cursor: Tensor | None) -> State:
        """See Feed."""
        return {"length": self.order.n}
