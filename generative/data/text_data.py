"""What an opened text source is: samples, tokenizer, and what is known about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from generative.data.config import (
    BuiltinTextConfig,
    DriftingTextConfig,
    HubTextConfig,
    ReversalTextConfig,
    TextDataConfig,
)
from generative.data.shards import TokenSequence, WindowSource
from generative.data.sources import Source, StreamingSource
from generative.data.tokenizers import Tokenizer
from generative.errors import ConfigError
from generative.method import DataFacts


@dataclass(frozen=True)
class TextData:
    """Text that is ready to be trained and evaluated on.

    Args:
        train: windows "tokens" int64[B, T + 1]; a StreamingSource for streamed hub data. Both go into `Loader`.
        validation: held-out windows at multiples of T, whatever the training stride: each token is predicted once.
        tokenizer: that made the tokens.
        facts: vocabulary size and window length T, for the method.
        description: one line, for reports.
        bytes_per_token: bytes of UTF-8 of the held-out text for each of its tokens. End-of-document tokens count as
            tokens without bytes, so that bits per byte pay for predicting where a document ends.
        fingerprint: identity of the tokens (a prepared or published folder of shards has the same on every machine).
    """

    train: Source | StreamingSource
    validation: Source
    tokenizer: Tokenizer
    facts: DataFacts
    description: str
    bytes_per_token: float
    fingerprint: str

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Bits per byte of text for a loss in nats per token."""
        return nats_per_token / math.log(2) / self.bytes_per_token


def describe(config: TextDataConfig) -> str:
    """One line on text, tokenizer and windows, for reports."""
    tokens = short_name(getattr(config.tokenizer, "id", config.tokenizer.name))
    return f"{_describe_text(config)}, {tokens} tokens, windows of {config.sequence_length}"


def short_name(name: str) -> str:
    """A name on the hub as it is, a folder by its last part."""
    return Path(name).name if Path(name).is_absolute() else name


def _describe_text(config: TextDataConfig) -> str:
    if isinstance(config, BuiltinTextConfig):
        return "sources of the Python library"
    if isinstance(config, HubTextConfig):
        subset = f"/{config.config}" if config.config else ""
        return f"hub data {short_name(config.id)}{subset} {config.split}.{config.column}"
    if isinstance(config, ReversalTextConfig):
        about = f"of {config.path.name}" if config.path else f"about {3 * config.people} made people"
        return f"statements {about} in one order or both"
    if isinstance(config, DriftingTextConfig):
        return f"made text of period {config.period:g}"
    kind = {"files": "files", "pairs": "prompts and responses"}.get(config.name, "token shards")
    return f"{kind} {config.path.name}"


def separator_of(config: TextDataConfig, tokenizer: Tokenizer) -> int | None:
    """The token after which a document of its own begins; None where windows are one text.

    Raises:
        ConfigError: the tokenizer has no end of text that would tell documents apart.
    """
    if not config.separate_documents:
        return None
    if tokenizer.eos_id is None:
        raise ConfigError(
            f"data.separate_documents=true with the tokenizer {tokenizer.name}, which has no end of text",
            "a tokenizer that ends documents: bytes, bpe, or one of Hugging Face with an end of text",
            "set data.tokenizer.name=bytes, or data.separate_documents=false",
        )
    return tokenizer.eos_id


def text_data(
    config: TextDataConfig,
    train: TokenSequence,
    validation: TokenSequence,
    tokenizer: Tokenizer,
    description: str,
    bytes_per_token: float,
    fingerprint: str,
) -> TextData:
    """Windows over both sequences of tokens. Raises DataError where one is shorter than a window."""
    length, separator = config.sequence_length, separator_of(config, tokenizer)
    return TextData(
        train=WindowSource(train, length, config.stride or length, "the training text", separator),
        validation=WindowSource(validation, length, length, "the held-out text", separator),
        tokenizer=tokenizer,
        facts=DataFacts(vocab_size=tokenizer.vocab_size, sequence_length=length),
        description=description,
        bytes_per_token=bytes_per_token,
        fingerprint=fingerprint,
    )
