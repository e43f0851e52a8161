"""Token files, memory-mapped as one long sequence, and fixed windows over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.files import map_file
from generative.data.order import Indices
from generative.data.sources import checked
from generative.errors import DataError


@dataclass(frozen=True)
class TokenFile:
    """`tokens` integers of type `dtype` in a file, after `offset` bytes."""

    path: Path
    tokens: int
    dtype: str
    offset: int = 0

    def map(self) -> NDArray[Any]:
        """See `map_file`."""
        return map_file(self.path, self.dtype, self.tokens, self.offset)


class TokenSequence:
    """Several files read as one sequence of tokens, or the part start .. stop-1 of it.

    Picklable: another process gets the paths and maps the files by itself.
    """

    def __init__(self, files: Sequence[TokenFile], start: int = 0, stop: int | None = None) -> None:
        self.files = tuple(file for file in files if file.tokens)
        self.ends = np.cumsum([file.tokens for file in self.files], dtype=np.int64)
        total = int(self.ends[-1]) if self.files else 0
        self.start, self.stop = start, total if stop is None else stop
        self._arrays: list[NDArray[Any]] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int | None = None) -> TokenSequence:
        """Tokens start .. stop-1 of this sequence, as a sequence."""
        return TokenSequence(self.files, self.start + start, self.stop if stop is None else self.start + stop)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": None}

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The mapped files."""
        if self._arrays is None:
            self._arrays = [file.map() for file in self.files]
        return self._arrays

    def windows(self, starts: Indices, length: int) -> NDArray[np.int64]:
        """int64[B, length]: the `length` tokens from each of starts int64[B] on; they may cross files."""
        rows = np.empty((len(starts), length), dtype=np.int64)
        places = starts + self.start
        numbers = np.searchsorted(self.ends, places, side="right")
        for row, place, number in zip(rows, places.tolist(), numbers.tolist(), strict=True):
            array = self.arrays[number]
            begin = place - int(self.ends[number]) + len(array)
            if begin + length <= len(array):
                row[:] = array[begin : begin + length]
            else:
                self._copy_across(row, number, begin)
        return rows

    def _copy_across(self, row: NDArray[np.int64], number: int, begin: int) -> None:
        filled = 0
        while filled < len(row):
            piece = self.arrays[number][begin : begin + len(row) - filled]
            row[filled : filled + len(piece)] = piece
            filled, number, begin = filled + len(piece), number + 1, 0


class WindowSource:
    """Samples that are windows of a token sequence: sample i is the length + 1 tokens from i * stride on.

    One token more than the length, so that next-token prediction has a target at every position. With stride = length
    each token but the first is predicted once. `separator`: see `with_documents`.
    """

    def __init__(
        self, tokens: TokenSequence, length: int, stride: int, what: str = "the text", separator: int | None = None
    ) -> None:
        self.tokens, self.width, self.stride, self.separator = tokens, length + 1, stride, separator
        if len(tokens) < self.width:
            raise DataError(
                f"{what} has {len(tokens)} tokens, fewer than the {self.width} of one window",
                expected=f"at least sequence_length + 1 = {self.width} tokens",
                remedy="give more text, or a smaller data.sequence_length or another validation_fraction",
            )
        self._count = (len(tokens) - self.width) // stride + 1

    def once(self) -> WindowSource:
        """The same tokens in windows that do not overlap, for whoever counts them."""
        return WindowSource(self.tokens, self.width - 1, self.width - 1, separator=self.separator)

    def __len__(self) -> int:
        return self._count

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"tokens": int64[B, length + 1]} for window numbers int64[B]; "document" besides, see `with_documents`."""
        numbers = checked(indices, self._count)
        return with_documents(self.tokens.windows(numbers * self.stride, self.width), self.separator)


def with_documents(tokens: NDArray[np.int64], separator: int | None) -> dict[str, Tensor]:
    """{"tokens": int64[B, W]}; with a separator, the token that ends a document and is its last, "document" int64[B, W]
    too: 0 for the first document of each window, 1 for the next one, and so on."""
    if separator is None:
        return {"tokens": torch.from_numpy(tokens)}
    ends = tokens == separator
    return {"tokens": torch.from_numpy(tokens), "document": torch.from_numpy(ends.cumsum(axis=1) - ends)}
