"""Held-out windows of streamed text, read once and kept in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from generative.data.order import Indices
from generative.data.shards import with_documents
from generative.data.stream import DocumentShards, with_eos
from generative.data.tokenizers import Tokenizer
from generative.errors import DataError


class ArraySource:
    """Windows in memory as a map-style source, int64[N, length + 1]."""

    def __init__(self, windows: NDArray[np.int64], separator: int | None = None) -> None:
        self.windows, self.separator = windows, separator

    def __len__(self) -> int:
        return len(self.windows)

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """See `WindowSource.fetch`."""
        return with_documents(self.windows[np.asarray(indices, dtype=np.int64)], self.separator)


def first_windows(
    shards: DocumentShards, tokenizer: Tokenizer, length: int, count: int, separator: int | None = None
) -> tuple[ArraySource, float]:
    """The first `count` windows (fewer if there is less text), at multiples of `length`, and bytes of text per token.

    Raises:
        DataError: less than one window.
    """
    arrays: list[NDArray[np.int64]] = []
    tokens = text_bytes = 0
    for text in (text for shard in range(len(shards)) for _, text in shards.read(shard, 0)):
        if tokens > count * length:
            break
        if text:
            arrays.append(with_eos(tokenizer.encode(text), tokenizer))
            tokens, text_bytes = tokens + len(arrays[-1]), text_bytes + len(text.encode())
    if tokens <= length:
        raise DataError(
            f"the held-out part of the streamed data has {tokens} tokens, fewer than the {length + 1} of one window",
            expected="at least sequence_length + 1 tokens",
            remedy="name a data.validation_split, raise data.validation_fraction, or lower data.sequence_length",
        )
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate(arrays), length + 1)[::length][:count]
    return ArraySource(np.ascontiguousarray(windows), separator), text_bytes / tokens
