"""Hugging Face tokenizers behind the house's protocol. Code that comes with a tokenizer is never run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.files import write_json
from generative.data.packages import needed
from generative.data.tokenizers import EOS, FILE, MASK, UNKNOWN, Ids, id_list, one_character
from generative.errors import DataError
from generative.hub_names import repository

FOLDER = "huggingface"


class HuggingFaceTokenizer:
    """A tokenizer of the transformers library; special tokens are never added, eos only ends documents."""

    name = "huggingface"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)
        self.eos_id: int | None = tokenizer.eos_token_id

    @staticmethod
    def open(name: str, revision: str | None = None, local: bool = False) -> HuggingFaceTokenizer:
        """From a folder or hub:OWNER/NAME; `local`: only if it is on this machine already.

        Raises:
            DataError: the library is not installed, or there is no such tokenizer.
        """
        library = needed(
            "transformers",
            package="transformers",
            extra="hub",
            by="data.tokenizer.name=huggingface",
            instead="a tokenizer that needs none (bytes, characters)",
        )
        try:
            revision = "main" if revision is None or Path(name).is_dir() else revision
            found = library.AutoTokenizer.from_pretrained(
                repository(name), revision=revision, trust_remote_code=False, local_files_only=local
            )
        except Exception as error:  # the library raises many kinds; each means that there is no such tokenizer here
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"unknown tokenizer {name!r}: {reason[0]}",
                expected="a folder with tokenizer.json, or hub:OWNER/NAME that can be reached",
                remedy="correct data.tokenizer.id, or use tokenizer.name=bytes",
            ) from error
        return HuggingFaceTokenizer(found)

    @staticmethod
    def learn(texts: Iterable[str], vocab_size: int) -> HuggingFaceTokenizer:
        """Byte-level BPE of at most that many tokens (see `LearnedTokenizerConfig`), the same for the same texts.

        Raises:
            DataError: the libraries are not installed.
        """
        library, parts = (
            needed(
                name,
                package=name,
                extra="hub",
                by="data.tokenizer.name=bpe",
                instead="a tokenizer that needs none (bytes, characters)",
            )
            for name in ("transformers", "tokenizers")
        )
        end = "<|endoftext|>"
        made = parts.Tokenizer(parts.models.BPE())
        made.pre_tokenizer = parts.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = parts.decoders.ByteLevel()
        alphabet = parts.pre_tokenizers.ByteLevel.alphabet()
        trainer = parts.trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator(texts, trainer)
        # A text that holds the name of the end is text all the same.
        return HuggingFaceTokenizer(
            library.PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, split_special_tokens=True)
        )

    @staticmethod
    def load(folder: Path) -> HuggingFaceTokenizer:
        """From a folder that `save` wrote."""
        return HuggingFaceTokenizer.open(str(folder / FOLDER))

    def save(self, folder: Path) -> None:
        """See Tokenizer."""
        self.tokenizer.save_pretrained(str(folder / FOLDER))
        write_json(folder / FILE, {"name": self.name, "id": self.tokenizer.name_or_path})

    def encode(self, text: str) -> NDArray[np.int64]:
        """See Tokenizer."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See Tokenizer."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [np.asarray(ids, dtype=np.int64) for ids in found["input_ids"]]

    def decode(self, ids: Ids) -> str:
        """See Tokenizer."""
        known = [i for i in id_list(ids) if 0 <= i < self.vocab_size and i != self.eos_id]
        return str(self.tokenizer.decode(known, clean_up_tokenization_spaces=False))

    def pieces(self, ids: Ids, mask_id: int | None = None) -> list[str]:
        """See Tokenizer; each token decoded alone."""
        return [self._piece(i, mask_id) for i in id_list(ids)]

    def _piece(self, i: int, mask_id: int | None) -> str:
        if i == mask_id:
            return MASK
        if i == self.eos_id:
            return EOS
        return str(self.tokenizer.decode([i], clean_up_tokenization_spaces=False)) if i < self.vocab_size else UNKNOWN

    def display(self, ids: Ids, mask_id: int | None = None) -> str:
        """See Tokenizer; a token of several characters shows its first."""
        return "".join(map(one_character, self.pieces(ids, mask_id)))

    def readable(self, ids: Ids, mask_id: int | None = None) -> str:
        """See Tokenizer; what lies between masks and ends is decoded together, for letters of several tokens."""
        signs = {mask_id: MASK, self.eos_id: EOS}
        groups = groupby(id_list(ids), key=lambda i: signs.get(i) or (UNKNOWN if i >= self.vocab_size else ""))
        return "".join(sign * len(list(some)) if sign else self.decode(list(some)) for sign, some in groups)
