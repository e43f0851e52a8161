"""Data sets in the Hugging Face layout, from the hub or a local folder, pinned to a commit. Their code is never run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from generative.data.config import HubTextConfig
from generative.data.documents import Span, decode, digest, listing
from generative.data.held_out import first_windows
from generative.data.packages import needed
from generative.data.stream import TextStream
from generative.data.text_data import TextData, describe, separator_of, short_name
from generative.data.tokenizers import open_tokenizer
from generative.errors import ConfigError, DataError
from generative.hub_names import repository
from generative.method import DataFacts


def resolve_revision(name: str, revision: str | None, kind: Literal["dataset", "tokenizer"]) -> str:
    """The commit that a branch or tag of a repository stands for; of a local folder, a hash of its files' listing.

    Raises:
        DataError: it cannot be found out.
    """
    if (folder := Path(name)).is_dir():
        return listing(folder, sorted(p for p in folder.rglob("*") if p.is_file()))
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        from huggingface_hub import HfApi

        sort = "dataset" if kind == "dataset" else "model"
        return str(HfApi().repo_info(repository(name), repo_type=sort, revision=revision).sha)
    except Exception as error:  # network, permissions, unknown names: many kinds, one meaning
        reason = "no such folder" if folder.is_absolute() else _first_line(error)
        raise DataError(
            f"{kind} {name!r} (revision {revision or 'main'}): {reason}",
            expected="a local folder, or a name on the hub that can be reached",
            remedy="correct the id; without network, set its revision to a full commit hash that is in the local cache",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def load_split(
    name: str, config: str | None, split: str, revision: str | None, streaming: bool = False
) -> tuple[Any, list[str]]:
    """A split of a data set at a commit (a local folder: as it is), and its columns (none where it has no rows).

    Raises:
        DataError: the library is not installed, or there is no such data set, configuration or split.
    """
    files = "data that needs none (another data.name)"
    library = needed("datasets", package="datasets", extra="hub", by="data.name=hub", instead=files)
    pinned = None if Path(name).is_dir() else revision
    try:
        found = library.load_dataset(name, config, split=split, revision=pinned, streaming=streaming)
        return found, list(found.column_names or next(iter(found), {}))
    except Exception as error:  # the library raises many kinds; each means that there is no such data here
        raise DataError(
            f"data set {name!r}, split {split!r}: {_first_line(error)}",
            expected="a data set of parquet, JSON lines, text or image files with this configuration and split",
            remedy="correct data.id, data.config, data.split or data.revision",
        ) from error


@dataclass(frozen=True)
class Place:
    """One split of a data set at a commit."""

    id: str
    config: str | None
    split: str
    column: str
    revision: str

    def load(self, streaming: bool) -> Any:
        """The split with its text column only.

        Raises:
            DataError: it cannot be loaded, or has no such column.
        """
        found, names = load_split(self.id, self.config, self.split, self.revision, streaming)
        if names and self.column not in names:
            raise DataError(
                f"data set {self.id!r} has no column {self.column!r}",
                expected=f"one of {', '.join(names)}",
                remedy="set data.column",
            )
        return found.select_columns([self.column])

    def text(self, value: Any, row: int) -> str:
        """The text of a row (none: empty). Raises DataError for another type."""
        if value is None or isinstance(value, str):
            return value or ""
        raise DataError(
            f"data set {self.id!r}: column {self.column!r} holds {type(value).__name__} in row {row}",
            expected="a column of text",
            remedy="set data.column to the column that holds the text",
        )


class HubCorpus:
    """The rows of a data set as documents; loaded when first read, and handed to other processes as memory maps."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.description = f"hub data {short_name(place.id)} {place.split}.{place.column}"
        self._rows: Any = None

    @property
    def rows(self) -> Any:
        """The data set."""
        if self._rows is None:
            self._rows = self.place.load(streaming=False)
        return self._rows

    def identity(self) -> dict[str, Any]:
        """See Corpus."""
        return {"hub": self.place.id, **{k: v for k, v in vars(self.place).items() if k != "id"}}

    def sizes(self) -> NDArray[np.int64]:
        """See Corpus."""
        from pyarrow import ArrowInvalid, ArrowNotImplementedError, compute

        parts = [np.empty(0, dtype=np.int64)]
        try:
            for table in self.rows.with_format("arrow").iter(10_000):
                lengths = compute.binary_length(table.column(0))
                parts.append(np.asarray(compute.fill_null(lengths, 0), dtype=np.int64))
        except (ArrowInvalid, ArrowNotImplementedError):
            self.place.text(self.rows[0][self.place.column], 0)
            raise
        return np.concatenate(parts)

    def read(self, document: int, start: int, stop: int) -> bytes:
        """See Corpus."""
        return self.place.text(self.rows[document][self.place.column], document).encode()[start:stop]

    def texts(self, spans: Sequence[Span]) -> list[str]:
        """See Corpus."""
        values = self.rows[[span.document for span in spans]][self.place.column]
        found = []
        for span, value in zip(spans, values, strict=True):
            data = self.place.text(value, span.document).encode()[span.start : span.stop]
            found.append(decode(data, span, f"{self.place.id} row {span.document}"))
        return found


def _places(config: HubTextConfig) -> tuple[Place, Place | None]:
    """Training split, and the held-out split where the configuration names one."""
    revision = resolve_revision(config.id, config.revision, "dataset")
    train = Place(config.id, config.config, config.split, config.column, revision)
    return train, replace(train, split=config.validation_split) if config.validation_split else None


def open_hub(config: HubTextConfig) -> tuple[HubCorpus, HubCorpus | None]:
    """Training corpus, and the held-out one where the configuration names a split. Raises DataError."""
    train, held_out = _places(config)
    return HubCorpus(train), HubCorpus(held_out) if held_out else None


class HubShards:
    """The files of a data set as shards that are read over the network (`DocumentShards`).

    Args:
        place: the split.
        fraction: part of the documents that is held out, chosen by a hash of their numbers.
        held_out: read that part, instead of the others.
    """

    def __init__(self, place: Place, fraction: float = 0.0, held_out: bool = False) -> None:
        self.place, self.fraction, self.held_out = place, fraction, held_out
        self._rows: Any = place.load(streaming=True)
        self._count = int(self._rows.num_shards)

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    def read(self, shard: int, start: int) -> Iterator[tuple[int, str]]:
        """See DocumentShards."""
        if self._rows is None:
            self._rows = self.place.load(streaming=True)
        rows = self._rows.shard(num_shards=self._count, index=shard)
        for number, row in enumerate(rows.skip(start), start):
            if self.fraction == 0 or self._is_held_out(shard, number) == self.held_out:
                yield number, self.place.text(row[self.place.column], number)

    def _is_held_out(self, shard: int, number: int) -> bool:
        value = hashlib.blake2b(f"{shard}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(value, "little") < self.fraction * 2**64


def open_stream(config: HubTextConfig) -> TextData:
    """Streamed data: training is read as it goes, the held-out windows are read now and kept in memory.

    Raises:
        ConfigError: a tokenizer that has to see the whole text first.
        DataError: it cannot be loaded, or has no held-out text.
    """
    tokenizer = open_tokenizer(config.tokenizer)
    if tokenizer is None:
        raise ConfigError(
            f"data.tokenizer.name={config.tokenizer.name} cannot be used with data.streaming=true",
            expected="a tokenizer that need not see all text first",
            remedy="use tokenizer.name=bytes or huggingface, or data.streaming=false",
        )
    place, other = _places(config)
    fraction = 0.0 if other else config.validation_fraction
    length, separator = config.sequence_length, separator_of(config, tokenizer)
    held_out = HubShards(other) if other else HubShards(place, fraction, held_out=True)
    validation, ratio = first_windows(held_out, tokenizer, length, config.validation_windows, separator)
    train = HubShards(place, fraction)
    stride = config.stride or length
    return TextData(
        train=TextStream(train, tokenizer, length, stride, config.shuffle_windows, config.lanes, separator),
        validation=validation,
        tokenizer=tokenizer,
        facts=DataFacts(vocab_size=tokenizer.vocab_size, sequence_length=length),
        description=f"{describe(config)}, streamed",
        bytes_per_token=ratio,
        fingerprint=digest([place, other, fraction, tokenizer.name, tokenizer.vocab_size]),
    )
