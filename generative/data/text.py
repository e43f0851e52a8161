"""From a configuration to training and validation samples of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from generative.data.config import (
    HubTextConfig,
    PairsTextConfig,
    ReversalTextConfig,
    ShardsTextConfig,
    TextDataConfig,
)
from generative.data.hub import open_stream
from generative.data.manifest import Manifest
from generative.data.packed import is_packed, open_packed
from generative.data.pairs import open_pairs
from generative.data.prepare import Progress, prepare_text
from generative.data.reversal import open_reversal
from generative.data.shards import TokenFile, TokenSequence
from generative.data.text_data import TextData, describe, text_data
from generative.data.tokenizers import load_tokenizer
from generative.errors import DataError

__all__ = ["TextData", "describe", "open_prepared", "open_text"]


def open_text(
    config: TextDataConfig,
    cache: Path | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    verify: bool = False,
) -> TextData:
    """Training and validation samples of a configuration; prepared first where that has not been done.

    Args: as for `prepare_text`.

    Raises:
        DataError: missing, empty, damaged or too short text, unknown tokenizer.
    """
    if isinstance(config, HubTextConfig) and config.streaming:
        return open_stream(config)
    if isinstance(config, PairsTextConfig):
        return open_pairs(config)
    if isinstance(config, ReversalTextConfig):
        return open_reversal(config, cache)
    if isinstance(config, ShardsTextConfig):
        return _open_shards(config, verify)
    folder = prepare_text(config, cache, workers=workers, progress=progress, verify=verify)
    return open_prepared(folder, config)


def _open_shards(config: ShardsTextConfig, verify: bool) -> TextData:
    if is_packed(config.path, config.pattern):
        return open_packed(config)
    Manifest.read(config.path).check(config.path, hashes=verify)
    return open_prepared(config.path, config)


def open_prepared(folder: Path, config: TextDataConfig) -> TextData:
    """Windows over a folder that `prepare_text` made; its own tokenizer is used.

    Raises:
        DataError: damaged, or too short for a window.
    """
    manifest = Manifest.read(folder)
    kind = np.dtype(manifest.dtype).newbyteorder("<").str

    def sequence(split: str) -> TokenSequence:
        return TokenSequence([TokenFile(folder / shard.file, shard.tokens, kind) for shard in manifest.splits[split]])

    if not {"train", "validation"} <= set(manifest.splits):
        raise DataError(
            f"{folder}: the prepared data has the splits {', '.join(sorted(manifest.splits)) or '(none)'}",
            expected="the splits train and validation, as `generative data prepare` writes them",
            remedy="prepare the data again, or correct data.path",
        )
    return text_data(
        config,
        sequence("train"),
        sequence("validation"),
        load_tokenizer(folder),
        f"{manifest.description}, {describe(config).split(', ', 1)[1]}",
        manifest.total("validation", "bytes") / max(manifest.total("validation", "tokens"), 1),
        manifest.fingerprint,
    )
