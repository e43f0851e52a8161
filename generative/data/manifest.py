"""What a folder of token shards says about itself, and whether that is true.

The folder holds raw little-endian integers, `train-00000.bin` ..., and `manifest.json`, which is written last: it names
the files with their counts and sha256, the type of their integers, and what the tokens were made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from generative.data.files import check_file, damaged, write_json
from generative.errors import DataError

MANIFEST = "manifest.json"
T = TypeVar("T")

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

        def parse(values: dict[str, Any]) -> Manifest:
            splits = {name: [Shard(**shard) for shard in shards] for name, shards in values.pop("splits").items()}
            return Manifest(splits=splits, **values)

        return read_manifest(folder, FORMAT, parse)

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


def read_manifest(folder: Path, form: Mapping[str, Any], parse: Callable[[dict[str, Any]], T]) -> T:
    """What `parse` makes of the entries of a folder's `manifest.json` besides its format.

    Raises:
        DataError: it is missing, of another format than `form`, or not what `parse` expects.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = {key: values.pop(key) for key in form}
        manifest = parse(values)
    except OSError as error:
        raise DataError(
            f"{folder}: no readable {MANIFEST} ({error.strerror})",
            expected="a folder that `generative data prepare` has completed",
            remedy="correct the path, or prepare the data again",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder / MANIFEST, f"not a manifest: {error}") from error
    if found != form:
        raise damaged(folder / MANIFEST, f"format {found}, where {dict(form)} was expected")
    return manifest


def check_shard(folder: Path, shard: Shard, itemsize: int, hashes: bool) -> None:
    """Size, and with `hashes` the sha256, of one shard. Raises DataError."""
    check_file(folder / shard.file, shard.tokens * itemsize, shard.sha256 if hashes else None)
