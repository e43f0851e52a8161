"""Text <-> token ids. A tokenizer is saved as JSON beside the tokens that it made, and read back from there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from generative.data.config import HuggingFaceTokenizerConfig, LearnedTokenizerConfig, TokenizerConfig
from generative.data.files import damaged, write_json
from generative.errors import ConfigError, DataError, suggestion

if TYPE_CHECKING:  # torch is slow to import, and the processes that tokenise do without it
    from torch import Tensor

Ids: TypeAlias = "Sequence[int] | NDArray[Any] | Tensor"
"""Token ids [T] in any form."""

FILE = "generative_tokenizer.json"
MASK, EOS, UNKNOWN = "▁", "¶", "�"
_VISIBLE = {"\n": "↵", "\r": "↵", "\t": "→", " ": " "}


class Tokenizer(Protocol):
    """What the rest of the system asks of a tokenizer. Picklable.

    Ids at or above vocab_size (mask, padding of the vocabulary) are allowed in `decode`, `pieces` and `display`: the
    first leaves them out, the others show a stand-in.
    """

    @property
    def name(self) -> str:
        """bytes, characters or huggingface (which a learned one becomes)."""
        ...

    @property
    def vocab_size(self) -> int:
        """All ids that it makes are below it."""
        ...

    @property
    def eos_id(self) -> int | None:
        """Id that ends a document, if there is one."""
        ...

    def encode(self, text: str) -> NDArray[np.int64]:
        """Ids int64[T], without any token added at the ends. Raises DataError for text that has none."""
        ...

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """`encode` of each text."""
        ...

    def decode(self, ids: Ids) -> str:
        """The text of ids [T]; eos and unknown ids are left out."""
        ...

    def pieces(self, ids: Ids, mask_id: int | None = None) -> list[str]:
        """What each token reads as, for people."""
        ...

    def display(self, ids: Ids, mask_id: int | None = None) -> str:
        """Exactly one visible character for each token: "▁" for the mask, stand-ins for what has none."""
        ...

    def readable(self, ids: Ids, mask_id: int | None = None) -> str:
        """The text for people, in full: "▁" for each mask, "¶" for an end; `display` where tokens are characters."""
        ...

    def save(self, folder: Path) -> None:
        """Write it into a folder; `load_tokenizer` reads it."""
        ...


def id_list(ids: Ids) -> list[int]:
    """Ids [T] as plain integers."""
    return [int(i) for i in (ids if isinstance(ids, Sequence) else ids.tolist())]


def one_character(piece: str) -> str:
    """The first visible character of a piece, or a stand-in."""
    for character in piece.strip(" ") or piece[:1]:
        if character in _VISIBLE:
            return _VISIBLE[character]
        return character if character.isprintable() else "·"
    return "·"


class ByteTokenizer:
    """UTF-8 bytes 0 .. 255 and the end of a document, 256."""

    name, vocab_size, eos_id = "bytes", 257, 256

    def encode(self, text: str) -> NDArray[np.int64]:
        """See Tokenizer."""
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8).astype(np.int64)

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See Tokenizer."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Ids) -> str:
        """See Tokenizer; bytes that are not UTF-8 become the replacement character."""
        return bytes(i for i in id_list(ids) if 0 <= i < 256).decode("utf-8", "replace")

    def pieces(self, ids: Ids, mask_id: int | None = None) -> list[str]:
        """See Tokenizer; a byte that is no ASCII character shows as "▫"."""
        special = {mask_id: MASK, self.eos_id: EOS}
        return [special.get(i) or (chr(i) if i < 128 else "▫" if i < 256 else UNKNOWN) for i in id_list(ids)]

    def display(self, ids: Ids, mask_id: int | None = None) -> str:
        """See Tokenizer."""
        return "".join(map(one_character, self.pieces(ids, mask_id)))

    readable = display

    def save(self, folder: Path) -> None:
        """See Tokenizer."""
        write_json(folder / FILE, {"name": self.name})


class CharacterTokenizer:
    """One token for each of the given characters, sorted by code point.

    With the replacement character "�" among them, it stands for any character that is not.
    """

    name, eos_id = "characters", None

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.vocab_size = len(self.characters)
        codes = _codes(self.characters)
        self._ids = np.full(int(codes.max(initial=0)) + 2, -1, dtype=np.int64)
        self._ids[codes] = np.arange(self.vocab_size)

    def encode(self, text: str) -> NDArray[np.int64]:
        """See Tokenizer."""
        codes = _codes(text)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if (unknown := ids < 0).any():
            stand_in = self.characters.find(UNKNOWN)
            if stand_in < 0:
                seen = chr(int(codes[unknown][0]))
                raise DataError(
                    f"the character {seen!r} is not in the vocabulary of the training text",
                    expected=f"text made of its {self.vocab_size} characters",
                    remedy="leave the character out, or train with tokenizer.name=bytes",
                )
            ids[unknown] = stand_in
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """See Tokenizer."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Ids) -> str:
        """See Tokenizer."""
        return "".join(self.characters[i] for i in id_list(ids) if 0 <= i < self.vocab_size)

    def pieces(self, ids: Ids, mask_id: int | None = None) -> list[str]:
        """See Tokenizer."""
        known = self.vocab_size
        return [MASK if i == mask_id else self.characters[i] if i < known else UNKNOWN for i in id_list(ids)]

    def display(self, ids: Ids, mask_id: int | None = None) -> str:
        """See Tokenizer."""
        return "".join(map(one_character, self.pieces(ids, mask_id)))

    readable = display

    def save(self, folder: Path) -> None:
        """See Tokenizer."""
        write_json(folder / FILE, {"name": self.name, "characters": self.characters})


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def open_tokenizer(config: TokenizerConfig, revision: str | None = None) -> Tokenizer | None:
    """The tokenizer of a configuration; None for `characters` and `bpe`, which must see the training text first.

    Args:
        config: which one.
        revision: the commit that the configuration's revision was resolved to, if that is known.

    Raises:
        ConfigError, DataError: it cannot be had.
    """
    if config.name == "bytes":
        return ByteTokenizer()
    if isinstance(config, HuggingFaceTokenizerConfig):
        from generative.data.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer.open(config.id, revision or config.revision)
    return None


def learned_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer | None:
    """The tokenizer `bpe` of a training text; None where the configuration wants another.

    Raises:
        DataError: the libraries that it needs are not installed.
    """
    if not isinstance(config, LearnedTokenizerConfig):
        return None
    from generative.data.huggingface import HuggingFaceTokenizer

    return HuggingFaceTokenizer.learn(texts, config.vocab_size)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read back what `Tokenizer.save` wrote.

    Raises:
        DataError: there is none, or it is damaged.
        ConfigError: it is of a kind that this version does not know.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        name, characters = str(values["name"]), str(values.get("characters", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"not a tokenizer: {error}") from error
    known = ("bytes", "characters", "huggingface")
    if name not in known:
        raise ConfigError(
            f"{path}: unknown tokenizer {name!r}{suggestion(name, known)}",
            expected=f"one of {', '.join(known)}",
            remedy="prepare the data with this version",
        )
    if name == "huggingface":
        from generative.data.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer.load(folder)
    return CharacterTokenizer(characters) if name == "characters" else ByteTokenizer()
