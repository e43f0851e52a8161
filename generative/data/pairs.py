"""Prompts with responses, for supervised fine-tuning: JSON lines, tokenised when they are opened.

A sample is prompt + response + end of text, filled up with further ends of text to the window's length; these are part
of what is learned, so that a model of whole windows learns where to stop.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.config import PairsTextConfig
from generative.data.files import text_lines
from generative.data.order import Indices
from generative.data.text_data import TextData, describe
from generative.data.tokenizers import Tokenizer, learned_tokenizer, open_tokenizer
from generative.errors import ConfigError, DataError
from generative.method import DataFacts


@dataclass(frozen=True)
class PairSource:
    """Samples in memory.

    Args:
        tokens: int64[N, T + 1].
        prompts: int64[N], tokens of each prompt.
    """

    tokens: NDArray[np.int64]
    prompts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"tokens": int64[B, T + 1], "prompt_length": int64[B]} for sample numbers int64[B]."""
        numbers = np.asarray(indices, dtype=np.int64)
        return {
            "tokens": torch.from_numpy(self.tokens[numbers]),
            "prompt_length": torch.from_numpy(self.prompts[numbers]),
        }


def open_pairs(config: PairsTextConfig) -> TextData:
    """Training and held-out pairs; the last part of the file is held out, from a tokenizer that is learned too.

    Pairs that do not fit a window are dropped.

    Raises:
        ConfigError: asked for several documents in a window.
        DataError: no such file, a line that is no pair, a tokenizer without end of text, or too few pairs.
    """
    if config.separate_documents:
        raise ConfigError(
            "data.separate_documents=true with data.name=pairs, whose windows hold one pair each",
            "windows of packed text",
            "leave data.separate_documents out",
        )
    pairs = read_pairs(config)
    tokenizer = open_tokenizer(config.tokenizer)
    cut = len(pairs) - max(1, round(len(pairs) * config.validation_fraction))
    seen = (prompt + response for prompt, response in pairs[: max(cut, 0)])
    tokenizer = tokenizer or learned_tokenizer(config.tokenizer, seen)
    if tokenizer is None or tokenizer.eos_id is None:
        raise DataError(
            f"data.tokenizer.name={config.tokenizer.name} has no end of text, which responses end with",
            expected="bytes, bpe, or a tokenizer of Hugging Face with an end of text",
            remedy="set data.tokenizer.name=bytes",
        )
    encoded = [(tokenizer.encode(prompt), tokenizer.encode(response)) for prompt, response in pairs]
    length = config.sequence_length
    kept = [i for i, (prompt, response) in enumerate(encoded) if len(prompt) + len(response) < length]
    first = bisect_left(kept, cut)
    if not 0 < first < len(kept):
        raise DataError(
            f"{config.path}: {len(kept)} of {len(pairs)} pairs fit a window of {length} tokens, {first} of them before "
            f"the last part, which is held out",
            expected="at least one for training and one to hold out",
            remedy="raise data.sequence_length, or give more pairs",
        )
    source = pair_source([encoded[i] for i in kept], tokenizer, length)
    train, held_out = (
        PairSource(source.tokens[part], source.prompts[part]) for part in (slice(first), slice(first, None))
    )
    written = sum(len((pairs[i][0] + pairs[i][1]).encode()) for i in kept[first:])
    dropped = f", {len(pairs) - len(kept)} too long" if len(kept) < len(pairs) else ""
    return TextData(
        train=train,
        validation=held_out,
        tokenizer=tokenizer,
        facts=DataFacts(vocab_size=tokenizer.vocab_size, sequence_length=length),
        description=describe(config) + dropped,
        bytes_per_token=written / (len(held_out) * length),
        fingerprint=hashlib.sha256(source.tokens.tobytes() + source.prompts.tobytes()).hexdigest(),
    )


def pair_source(
    encoded: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], tokenizer: Tokenizer, length: int
) -> PairSource:
    """Prompts and responses, ids each, filled up with ends of text to `length` + 1; together they must be shorter."""
    tokens = np.full((len(encoded), length + 1), tokenizer.eos_id, dtype=np.int64)
    for row, (prompt, response) in zip(tokens, encoded, strict=True):
        row[: len(prompt)] = prompt
        row[len(prompt) : len(prompt) + len(response)] = response
    return PairSource(tokens, np.array([len(prompt) for prompt, _ in encoded], dtype=np.int64))


def read_pairs(config: PairsTextConfig) -> list[tuple[str, str]]:
    """(prompt, response) of each line.

    Raises:
        DataError: no such file, or a line that is no pair.
    """
    try:
        lines = list(text_lines(config.path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{config.path}: {error}", expected="a file of JSON lines in UTF-8", remedy="correct data.path"
        ) from error
    return [_pair(config, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _pair(config: PairsTextConfig, number: int, line: str) -> tuple[str, str]:
    try:
        values = json.loads(line)
        prompt, response = values[config.prompt], values[config.response]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_pair(config, number, f"{type(error).__name__}: {error}") from error
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise _no_pair(config, number, "not text")
    return prompt, response


def _no_pair(config: PairsTextConfig, number: int, reason: str) -> DataError:
    return DataError(
        f"{config.path}, line {number}: {reason}",
        expected=f'{{"{config.prompt}": "...", "{config.response}": "..."}}',
        remedy="correct the line, or name the keys in data.prompt and data.response",
    )
