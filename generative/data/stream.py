"""Text that is read, tokenised and packed while it is trained on, with exact and elastic resume.

The data comes in shards (files of the data set). K lanes read them: lane k has shards k, k + K, ... and fills positions
k*B/K .. (k+1)*B/K - 1 of every global batch of B. So the samples of a batch do not depend on the world size; a rank
reads only the lanes that its part of the batch touches. A lane's tokens are one endless sequence: its shards in an
order that is shuffled anew each epoch, their documents, eos after each. Nothing is dropped where an epoch ends. The
cursor of a lane is the place (epoch, shard, document, token) where its current block of windows begins, and how many
windows of it were given; within a block the windows are shuffled by a keyed permutation.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.order import permute
from generative.data.shards import with_documents
from generative.data.tokenizers import Tokenizer
from generative.errors import ConfigError, DataError

_TOGETHER = 64
"""Documents that are tokenised in one call."""


class DocumentShards(Protocol):
    """Shards of documents that can be read in order only. Picklable."""

    def __len__(self) -> int:
        """Number of shards."""
        ...

    def read(self, shard: int, start: int) -> Iterator[tuple[int, str]]:
        """(number, text) of the documents of a shard with numbers from `start` on, in increasing order.

        Numbers may be missing (documents that are held out), but always the same ones.
        """
        ...


@dataclass(frozen=True)
class Cursor:
    """Where a lane goes on: a block of windows begins at `token` of `document` of the lane's `shard`-th shard of the
    epoch, and `given` of its windows were handed out."""

    epoch: int = 0
    shard: int = 0
    document: int = 0
    token: int = 0
    given: int = 0


@dataclass(frozen=True)
class Packing:
    """How text becomes windows: length + 1 tokens at multiples of `stride`, shuffled in blocks of `block`.

    `separator` is that of `with_documents`.
    """

    shards: DocumentShards
    tokenizer: Tokenizer
    length: int
    stride: int
    block: int
    seed: int
    separator: int | None = None

    def facts(self) -> dict[str, int]:
        """What a cursor is only right for."""
        return {"shards": len(self.shards), "length": self.length, "stride": self.stride, "block": self.block}


class _Piece(NamedTuple):
    """Tokens of one document, from `cursor.token` on."""

    cursor: Cursor
    tokens: NDArray[np.int32]


class Lane:
    """The windows of one lane, one after another, from a cursor on."""

    def __init__(self, packing: Packing, shards: Sequence[int], number: int, cursor: Cursor) -> None:
        self.packing, self.shards, self.number, self.cursor = packing, shards, number, cursor
        self._pieces = self._read(cursor)
        self._held: list[_Piece] = []
        self._windows: NDArray[np.int32] | None = None
        self._next = cursor

    def take(self, count: int) -> NDArray[np.int32]:
        """The next `count` windows, int32[count, length + 1]."""
        parts = []
        while count:
            if self._windows is None:
                self._windows, self._next = self._fill()
            part = self._windows[self.cursor.given : self.cursor.given + count]
            parts.append(part)
            count -= len(part)
            self.cursor = replace(self.cursor, given=self.cursor.given + len(part))
            if self.cursor.given == self.packing.block:
                self._windows, self.cursor = None, self._next
        return np.concatenate(parts)

    def _fill(self) -> tuple[NDArray[np.int32], Cursor]:
        """The block that begins at the cursor, shuffled, and the cursor of the block after it."""
        packing = self.packing
        step, width = packing.stride * packing.block, packing.length + 1
        self._hold(max(step - packing.stride + width, step + 1))
        ends = np.cumsum([len(piece.tokens) for piece in self._held])
        tokens = np.concatenate([piece.tokens for piece in self._held])
        windows = np.lib.stride_tricks.sliding_window_view(tokens, width)[: step : packing.stride]
        # Blocks of one lane differ in where they begin, which makes a key for each of them.
        start = self.cursor
        place = f"{self.number}/{start.epoch}/{start.shard}/{start.document}/{start.token}".encode()
        key = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little")
        shuffled = windows[permute(np.arange(packing.block), packing.block, packing.seed, key)]
        first = bisect_right(ends.tolist(), step)
        piece, skipped = self._held[first], step - int(ends[first]) + len(self._held[first].tokens)
        after = replace(piece.cursor, token=piece.cursor.token + skipped, given=0)
        self._held = [_Piece(after, piece.tokens[skipped:]), *self._held[first + 1 :]]
        return shuffled, after

    def _hold(self, count: int) -> None:
        """Read on until `count` tokens are at hand."""
        held = sum(len(piece.tokens) for piece in self._held)
        while held < count:
            piece = next(self._pieces)
            self._held.append(piece)
            held += len(piece.tokens)

    def _read(self, start: Cursor) -> Iterator[_Piece]:
        """Endless pieces from a cursor on. Raises DataError where a whole epoch has no text."""
        epoch, empty = start.epoch, start == replace(start, shard=0, document=0, token=0)
        while True:
            order = permute(np.arange(len(self.shards)), len(self.shards), self.packing.seed, ~epoch).tolist()
            for place in range(start.shard if epoch == start.epoch else 0, len(order)):
                first = start.document if (epoch, place) == (start.epoch, start.shard) else 0
                for document, tokens in self._documents(self.shards[order[place]], first):
                    skip = start.token if (epoch, place, document) == (start.epoch, start.shard, start.document) else 0
                    if len(tokens) > skip:
                        empty = False
                        yield _Piece(Cursor(epoch, place, document, skip), tokens[skip:])
            if empty:
                raise DataError(
                    f"the shards {list(self.shards)} of the streamed data hold no text",
                    expected="text in each lane's shards",
                    remedy="check data.column and data.split, or lower data.lanes",
                )
            epoch, empty = epoch + 1, True

    def _documents(self, shard: int, first: int) -> Iterator[tuple[int, NDArray[np.int32]]]:
        rest = ((number, text) for number, text in self.packing.shards.read(shard, first) if text)
        while group := list(islice(rest, _TOGETHER)):
            arrays = self.packing.tokenizer.encode_many([text for _, text in group])
            for (document, _), ids in zip(group, arrays, strict=True):
                yield document, with_eos(ids, self.packing.tokenizer).astype(np.int32)


class StreamFeed:
    """The lanes that a rank reads; see `generative.data.loader.Feed`."""

    max_workers: int | None = 1

    def __init__(self, packing: Packing, lanes: Sequence[Cursor], batch_size: int, first: int, last: int) -> None:
        if len(lanes) > batch_size:
            raise ConfigError(
                f"a batch of {batch_size} is smaller than the {len(lanes)} lanes of the streamed data",
                expected="at least one sample for each lane",
                remedy="use a larger batch, or start a new run with data.lanes at most the batch size",
            )
        self.packing, self.cursors, self.batch_size = packing, list(lanes), batch_size
        self.bounds = [k * batch_size // len(lanes) for k in range(len(lanes) + 1)]
        self.mine = [k for k in range(len(lanes)) if self.bounds[k] < last and self.bounds[k + 1] > first]
        self._lanes: dict[int, Lane] = {}

    def take(self, start: int, first: int, last: int) -> tuple[dict[str, Tensor], Tensor]:
        """See Feed. `first` and `last` are always the same; the lanes know where they are."""
        rows = []
        for k in self.mine:
            begin, end = self.bounds[k], self.bounds[k + 1]
            windows = self._lane(k).take(end - begin)
            rows.append(windows[max(first - begin, 0) : last - begin])
        return with_documents(np.concatenate(rows).astype(np.int64), self.packing.separator), self._cursor(first)

    def _lane(self, k: int) -> Lane:
        if k not in self._lanes:
            shards = range(k, len(self.packing.shards), len(self.cursors))
            self._lanes[k] = Lane(self.packing, shards, k, self.cursors[k])
        return self._lanes[k]

    def _cursor(self, first: int) -> Tensor:
        """int64[K, 5], zero but for the lanes that begin in this rank's part, so that ranks sum to all lanes."""
        table = torch.zeros(len(self.cursors), 5, dtype=torch.int64)
        for k in self.mine:
            if self.bounds[k] >= first:
                table[k] = torch.tensor(astuple(self._lanes[k].cursor))
        return table

    def state(self, cursor: Tensor | None) -> dict[str, Any]:
        """See Feed."""
        lanes = [list(astuple(c)) for c in self.cursors] if cursor is None else cursor.tolist()
        return {"lanes": lanes, "stream": self.packing.facts()}


class TextStream:
    """Streamed text as a `StreamingSource`.

    Args:
        shards: the documents.
        lanes: number of lanes (None: one a shard, at most 64); never more than shards or samples in a batch.
        block: windows that are shuffled together within a lane.
        separator: see `with_documents`.
    """

    def __init__(
        self,
        shards: DocumentShards,
        tokenizer: Tokenizer,
        length: int,
        stride: int,
        block: int,
        lanes: int | None,
        separator: int | None = None,
    ) -> None:
        self.shards, self.tokenizer, self.length, self.stride = shards, tokenizer, length, stride
        self.block, self.lanes, self.separator = block, lanes, separator

    def feed(self, *, batch_size: int, seed: int, first: int, last: int, state: Mapping[str, Any] | None) -> StreamFeed:
        """See StreamingSource. With a state, the number of lanes is the one that it has."""
        packing = Packing(self.shards, self.tokenizer, self.length, self.stride, self.block, seed, self.separator)
        if state is None:
            count = min(self.lanes or 64, len(self.shards), batch_size)
            return StreamFeed(packing, [Cursor()] * count, batch_size, first, last)
        if state.get("stream") != packing.facts():
            raise DataError(
                f"the checkpoint's data cursor belongs to other data: {state.get('stream')}, now {packing.facts()}",
                expected="the same shards, sequence length, stride and shuffle_windows as before",
                remedy="restore the data settings of the run, or start a new run",
            )
        return StreamFeed(packing, [Cursor(*lane) for lane in state["lanes"]], batch_size, first, last)


def with_eos(ids: NDArray[np.int64], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Ids of a document, int64[T], and the token that ends it, where there is one."""
    return ids if tokenizer.eos_id is None else np.append(ids, np.int64(tokenizer.eos_id))
