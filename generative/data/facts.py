"""What a method must know of its data, found out without reading or fetching them."""

from __future__ import annotations

from pathlib import Path

from generative.data.config import (
    HuggingFaceTokenizerConfig,
    PairsTextConfig,
    ReversalTextConfig,
    ShardsTextConfig,
    TextDataConfig,
)
from generative.data.pairs import open_pairs
from generative.data.prepare import prepared_folder
from generative.data.reversal import open_reversal
from generative.data.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer
from generative.errors import DataError, GenerativeError
from generative.method import DataFacts


def known_facts(config: TextDataConfig, vocab_size: int | None = None) -> DataFacts:
    """Vocabulary size and window length of a text source that may not be there yet.

    Args:
        config: the source.
        vocab_size: of the network's configuration; where it is set, no tokenizer is needed.

    Raises:
        DataError: the vocabulary is known only from data or from a tokenizer that are not on this machine.
    """
    if vocab_size is not None:
        return DataFacts(sequence_length=config.sequence_length)
    try:
        tokenizer = _tokenizer_at_hand(config)
    except GenerativeError as error:
        raise _unknown(config, error.problem) from error
    if tokenizer is None:
        raise _unknown(config, "the data are not prepared on this machine")
    return DataFacts(vocab_size=tokenizer.vocab_size, sequence_length=config.sequence_length)


def _tokenizer_at_hand(config: TextDataConfig) -> Tokenizer | None:
    """The tokenizer, if it is on this machine; None where it has to be made from the text."""
    if isinstance(config, ShardsTextConfig) and (config.path / "generative_tokenizer.json").is_file():
        return load_tokenizer(config.path)
    if config.tokenizer.name == "bytes":
        return ByteTokenizer()
    if isinstance(config.tokenizer, HuggingFaceTokenizerConfig):
        from generative.data.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer.open(config.tokenizer.id, config.tokenizer.revision, local=True)
    if isinstance(config, ReversalTextConfig):
        return open_reversal(config).tokenizer
    if isinstance(config, PairsTextConfig):
        return open_pairs(config).tokenizer
    folder: Path | None = None if isinstance(config, ShardsTextConfig) else prepared_folder(config)
    return None if folder is None else load_tokenizer(folder)


def _unknown(config: TextDataConfig, reason: str) -> DataError:
    return DataError(
        f"the size of the vocabulary is not known: {reason}",
        expected=f"tokenizer {config.tokenizer.name!r} on this machine, or method.network.vocab_size",
        remedy="set method.network.vocab_size=N, or run `generative data prepare` with this configuration first",
    )
