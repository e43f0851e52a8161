"""TinyLlama's packed chunks (`LITPKDS`), read where they lie.

A chunk is a header of 24 bytes (magic, version 1 as uint64, a code of the integer type as uint8, length as uint64, all
little-endian) and so many tokens. Chunks are read in the order of their names as one sequence; data.stride=2049 with
data.sequence_length=2048 gives the blocks of the reference.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from generative.data.config import ShardsTextConfig
from generative.data.documents import digest
from generative.data.files import damaged
from generative.data.manifest import MANIFEST
from generative.data.shards import TokenFile, TokenSequence
from generative.data.text_data import TextData, describe, text_data
from generative.data.tokenizers import Tokenizer, open_tokenizer
from generative.errors import ConfigError, DataError

MAGIC, HEADER = b"LITPKDS", struct.Struct("<7sQBQ")
_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_CHECKED = 1 << 16
"""Tokens at the start of each split that are decoded, to see that they fit the tokenizer and count their bytes."""


def is_packed(path: Path, pattern: str) -> bool:
    """Whether a folder holds packed chunks rather than prepared shards.

    Raises:
        DataError: no such folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder", expected="a folder of token shards", remedy="correct data.path")
    if (path / MANIFEST).exists():
        return False
    first = next(iter(sorted(path.glob(pattern))), None)
    if first is None:
        return False
    with first.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> TokenFile:
    """The tokens of a chunk.

    Raises:
        DataError: not a chunk, of another version or type, or cut short.
    """
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise damaged(path, "it does not begin with a LITPKDS header")
    _, version, code, tokens = HEADER.unpack(header)
    if version != 1 or code not in _TYPES:
        raise damaged(path, f"version {version} and type code {code}, where version 1 and an integer type are known")
    size = HEADER.size + tokens * np.dtype(_TYPES[code]).itemsize
    if path.stat().st_size != size:
        raise damaged(path, f"{path.stat().st_size} bytes, where its header says {size}")
    return TokenFile(path, tokens, _TYPES[code], HEADER.size)


def read_chunks(folder: Path, pattern: str) -> TokenSequence:
    """All chunks of a folder as one sequence. Raises DataError where there are none, or one is damaged."""
    files = [read_header(path) for path in sorted(folder.glob(pattern)) if path.is_file()]
    if not files:
        raise DataError(
            f"{folder}: no file fits the pattern {pattern!r}",
            expected="packed chunks",
            remedy="correct data.path, data.validation_path or data.pattern",
        )
    return TokenSequence(files)


def open_packed(config: ShardsTextConfig) -> TextData:
    """Windows over packed chunks, with the configuration's tokenizer.

    Raises:
        ConfigError: a tokenizer that cannot have made them.
        DataError: damaged or too short chunks, or ids that the tokenizer does not have.
    """
    train = read_chunks(config.path, config.pattern)
    if config.validation_path:
        validation = read_chunks(config.validation_path, config.pattern)
    else:
        cut = int(len(train) * (1 - config.validation_fraction))
        train, validation = train.part(0, cut), train.part(cut)
    tokenizer = open_tokenizer(config.tokenizer)
    if tokenizer is None:
        raise ConfigError(
            f"data.tokenizer.name={config.tokenizer.name} does not fit packed chunks: ids of a given tokenizer",
            expected="the tokenizer that made the chunks",
            remedy="set data.tokenizer.name=huggingface and data.tokenizer.id",
        )
    check_ids(train, tokenizer, config.path)
    description = f"packed chunks {config.path.name}, {describe(config).split(', ', 1)[1]}"
    ratio = check_ids(validation, tokenizer, config.validation_path or config.path)
    return text_data(config, train, validation, tokenizer, description, ratio, _fingerprint([train, validation]))


def check_ids(tokens: TokenSequence, tokenizer: Tokenizer, path: Path) -> float:
    """Bytes of text per token, counted on the first tokens. Raises DataError for ids that are not the tokenizer's."""
    count = min(len(tokens), _CHECKED)
    if count == 0:
        return 1.0
    ids = tokens.windows(np.zeros(1, dtype=np.int64), count)[0]
    if ids.min() < 0 or ids.max() >= tokenizer.vocab_size:
        raise DataError(
            f"{path}: token ids {ids.min()} .. {ids.max()} do not fit the tokenizer's {tokenizer.vocab_size}",
            expected="the tokenizer that made the tokens",
            remedy="correct data.tokenizer",
        )
    return max(len(tokenizer.decode(ids).encode()), 1) / count


def _fingerprint(sequences: Sequence[TokenSequence]) -> str:
    """Names and sizes: chunks come without hashes, and reading terabytes to make them is not worth it."""
    return digest((file.path.name, file.tokens, s.start, s.stop) for s in sequences for file in s.files)
