"""Settings of a text source. The key that picks the variant is `name`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from generative.config import Config


def _absolute(path: Path) -> Path:
    """Made absolute where it is read, because Ray's workers start in other folders."""
    return path.expanduser().absolute()


def _absolute_if_folder(name: str) -> str:
    """A name on the hub stays as it is; a folder becomes an absolute path."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() or name.startswith(("/", "./", "../", "~")) else name


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
HubName = Annotated[str, AfterValidator(_absolute_if_folder)]


class BytesTokenizerConfig(Config):
    """The 256 bytes of UTF-8, and an end-of-document token (id 256)."""

    name: Literal["bytes"] = "bytes"


class CharactersTokenizerConfig(Config):
    """The characters that occur in the training text, sorted; no end-of-document token."""

    name: Literal["characters"] = "characters"


class LearnedTokenizerConfig(Config):
    """Byte-level BPE that is learned from the training text, with an end-of-document token (id 0)."""

    name: Literal["bpe"] = "bpe"
    vocab_size: int = Field(default=4096, ge=257)
    """Tokens, the 256 bytes and the end of a document among them; fewer where the text has no more to merge."""


class HuggingFaceTokenizerConfig(Config):
    """A tokenizer in the Hugging Face layout."""

    name: Literal["huggingface"] = "huggingface"
    id: HubName
    """Name on the hub, or a folder with tokenizer.json."""
    revision: str | None = None
    """Commit, tag or branch on the hub; a commit is pinned."""


TokenizerConfig = Annotated[
    BytesTokenizerConfig | CharactersTokenizerConfig | LearnedTokenizerConfig | HuggingFaceTokenizerConfig,
    Field(discriminator="name"),
]


class WindowConfig(Config):
    """What all text sources have in common: windows of packed tokens, a tokenizer, a held-out part."""

    sequence_length: int = Field(default=128, ge=1)
    """Tokens in a window; each sample carries one more, the last target of next-token prediction."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens from the start of one training window to the next (null: sequence_length)."""
    tokenizer: TokenizerConfig = BytesTokenizerConfig()
    """How text becomes tokens."""
    separate_documents: bool = False
    """Tokens attend to their own document only, with positions of their own, as if each were a sample by itself; needs
    a tokenizer with an end of text."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Part of the text that is held out: whole documents where there are several, else the end of the text."""
    cache: AbsolutePath | None = None
    """Folder of prepared tokens (null: $XDG_CACHE_HOME/generative, or ~/.cache/generative)."""


class BuiltinTextConfig(WindowConfig):
    """The sources of the installed Python library, tests left out: real text on any machine."""

    name: Literal["builtin"] = "builtin"
    max_documents: int | None = Field(default=None, ge=1)
    """Use at most so many files, picked by a fixed shuffle."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Use at most so many bytes, whole files picked by a fixed shuffle."""


class FilesTextConfig(WindowConfig):
    """Text files in UTF-8; each is a document."""

    name: Literal["files"] = "files"
    path: AbsolutePath
    """A file, or a folder that is searched for `pattern`."""
    pattern: str = "**/*.txt"
    """Which files of the folder, in glob syntax."""
    validation_path: AbsolutePath | None = None
    """A file or folder to hold out instead of a fraction."""


class HubTextConfig(WindowConfig):
    """A data set in the Hugging Face layout (parquet, JSON lines, text); those that need code are refused."""

    name: Literal["hub"] = "hub"
    id: HubName
    """Name on the hub, or a local folder in the same layout."""
    config: str | None = None
    """Configuration (subset) of the data set."""
    split: str = "train"
    """Split to train on."""
    column: str = "text"
    """Column that holds the text; each row is a document."""
    revision: str | None = None
    """Commit, tag or branch; resolved to a commit, which a run without network must name itself."""
    validation_split: str | None = None
    """Split to hold out instead of a fraction."""
    streaming: bool = False
    """Read and tokenise while training, instead of preparing everything first."""
    lanes: int | None = Field(default=None, ge=1)
    """Streaming: parallel readers, each with its own files and part of every batch (null: one a file, at most 64)."""
    shuffle_windows: int = Field(default=16, ge=1)
    """Streaming: each lane shuffles within blocks of so many windows (1: no shuffling)."""
    validation_windows: int = Field(default=256, ge=1)
    """Streaming: number of held-out windows, read from the start of the held-out text."""


class ShardsTextConfig(WindowConfig):
    """Prepared token shards: a folder that `generative data prepare` made, or TinyLlama's packed chunks (*.bin)."""

    name: Literal["shards"] = "shards"
    path: AbsolutePath
    """The folder. Its own tokenizer wins; packed chunks have none and take the `tokenizer` of this section."""
    pattern: str = "*.bin"
    """Which files of a folder of packed chunks."""
    validation_path: AbsolutePath | None = None
    """A folder of packed chunks to hold out instead of the end of the tokens."""


class PairsTextConfig(WindowConfig):
    """Prompts with responses, for fine-tuning: JSON lines, one pair each, filled up with ends of text to a window."""

    name: Literal["pairs"] = "pairs"
    path: AbsolutePath
    """File of JSON lines in UTF-8."""
    prompt: str = "prompt"
    """Key of the prompt."""
    response: str = "response"
    """Key of the response."""


class ReversalTextConfig(WindowConfig):
    """Statements about people that name and description begin by turns, to be asked about the other way round."""

    name: Literal["reversal"] = "reversal"
    path: AbsolutePath | None = None
    """Folder of the published files of the reversal curse (all_prompts_train.jsonl and the tests); null: made ones."""
    people: int = Field(default=30, ge=1, le=500)
    """Made: people of each of three groups: name first, description first, both."""
    phrasings: int = Field(default=8, ge=1, le=10)
    """Made: statements about each person and order."""
    seed: int = 0
    """Made: of names and descriptions."""


class DriftingTextConfig(WindowConfig):
    """Made text whose words change with time: for a model of one period to be measured on later ones."""

    name: Literal["drifting"] = "drifting"
    period: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the words that are new, in place of ones of period 0; grammar and frequencies stay."""
    documents: int = Field(default=200, ge=2)
    """Number of documents."""
    seed: int = 0
    """Of the language; each period has documents of its own."""


TextDataConfig = Annotated[
    BuiltinTextConfig
    | FilesTextConfig
    | HubTextConfig
    | ShardsTextConfig
    | PairsTextConfig
    | ReversalTextConfig
    | DriftingTextConfig,
    Field(discriminator="name"),
]
"""A text source; the section `data` of a configuration."""
