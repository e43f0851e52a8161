"""Token shards on disk, memory-mapped as one long sequence, and fixed windows over it.

A folder of shards holds raw little-endian integers, `train-00000.bin` ..., and `manifest.json`, which is written last:
it names the files with their counts and sha256, the tokenizer, and what the tokens were made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.files import damaged, file_hash, write_json
from generative.data.order import Indices
from generative.errors import DataError

MANIFEST = "manifest.json"
FORMAT = {"format": "generative-tokens", "version": 1}


@dataclass(frozen=True)
class Shard:
    """One file of tokens: counts, size of the text that they stand for (UTF-8), and hash of the file."""

    file: str
    tokens: int
    documents: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards says about itself.

    Args:
        dtype: "uint16" or "uint32".
        eos: id that ends each document, if any.
        vocab_size: all ids are below it.
        splits: shards of "train" and "validation", in order.
        description: the text's origin, for people.
        source: what the shards were made from, for the fingerprint.
    """

    dtype: str
    eos: int | None
    vocab_size: int
    splits: Mapping[str, Sequence[Shard]]
    description: str
    source: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `manifest.json` in one step: it is there whole or not at all."""
        write_json(folder / MANIFEST, {**FORMAT, **asdict(self)})

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read `manifest.json`.

        Raises:
            DataError: it is missing or not a manifest of this format.
        """
        try:
            values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            found = {key: values.pop(key) for key in FORMAT}
            values["splits"] = {name: [Shard(**shard) for shard in shards] for name, shards in values["splits"].items()}
            manifest = Manifest(**values)
        except OSError as error:
            raise DataError(
                f"{folder}: no readable {MANIFEST} ({error.strerror})",
                expected="a folder that `generative data prepare` has completed",
                remedy="correct the path, or prepare the data again",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(folder / MANIFEST, f"not a manifest: {error}") from error
        if found != FORMAT:
            raise damaged(folder / MANIFEST, f"format {found}, where {FORMAT} was expected")
        return manifest

    def total(self, split: str, count: str) -> int:
        """Sum of "tokens", "documents" or "bytes" over the shards of a split."""
        return sum(int(getattr(shard, count)) for shard in self.splits.get(split, ()))

    @property
    def fingerprint(self) -> str:
        """Identity of the tokens themselves, whatever they were made from and however they are cut into files."""
        hashes = {name: [shard.sha256 for shard in shards] for name, shards in self.splits.items()}
        return hashlib.sha256(json.dumps([self.dtype, self.eos, self.vocab_size, hashes]).encode()).hexdigest()

    def check(self, folder: Path, hashes: bool = False) -> None:
        """Compare the files with the manifest: their sizes, and with `hashes` every byte.

        Raises:
            DataError: naming the file that is missing or damaged.
        """
        for shard in (shard for shards in self.splits.values() for shard in shards):
            check_shard(folder, shard, np.dtype(self.dtype).itemsize, hashes)


def check_shard(folder: Path, shard: Shard, itemsize: int, hashes: bool) -> None:
    """Size, and with `hashes` the sha256, of one shard. Raises DataError."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
    except OSError as error:
        raise damaged(path, f"{error.strerror}") from error
    if size != shard.tokens * itemsize:
        raise damaged(path, f"{size} bytes, where {shard.tokens * itemsize} were expected")
    if hashes and file_hash(path) != shard.sha256:
        raise damaged(path, "its sha256 differs from the one recorded")


@dataclass(frozen=True)
class TokenFile:
    """`tokens` integers of type `dtype` in a file, after `offset` bytes."""

    path: Path
    tokens: int
    dtype: str
    offset: int = 0

    def map(self) -> NDArray[Any]:
        """Memory-map it: a plain array, because slices of np.memmap cost several times more."""
        if self.tokens == 0:
            return np.empty(0, dtype=self.dtype)
        try:
            mapped = np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=(self.tokens,))
        except (OSError, ValueError) as error:
            raise damaged(self.path, str(error)) from error
        return np.asarray(mapped)


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
    each token but the first is predicted once.
    """

    def __init__(self, tokens: TokenSequence, length: int, stride: int, what: str = "the text") -> None:
        self.tokens, self.width, self.stride = tokens, length + 1, stride
        if len(tokens) < self.width:
            raise DataError(
                f"{what} has {len(tokens)} tokens, fewer than the {self.width} of one window",
                expected=f"at least sequence_length + 1 = {self.width} tokens",
                remedy="give more text, or a smaller data.sequence_length or another validation_fraction",
            )
        self._count = (len(tokens) - self.width) // stride + 1

    def __len__(self) -> int:
        return self._count

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"tokens": int64[B, length + 1]} for window numbers int64[B]."""
        numbers = np.asarray(indices, dtype=np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < self._count):
            raise IndexError(f"window numbers must lie in 0 .. {self._count - 1}")
        return {"tokens": torch.from_numpy(self.tokens.windows(numbers * self.stride, self.width))}
