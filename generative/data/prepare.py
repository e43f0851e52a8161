"""Tokenise a corpus once: in parallel, resumably shard by shard, verified, and complete or not there at all.

The cache holds one folder for each (text, tokenizer, split); its name is a hash of them. It is made as `NAME.partial`
under a lock and renamed when its manifest is written. A killed preparation goes on after its last finished shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from generative.data.cache import available_cores, begin, default_cache, make_once
from generative.data.config import (
    BuiltinTextConfig,
    DriftingTextConfig,
    FilesTextConfig,
    HubTextConfig,
    TextDataConfig,
)
from generative.data.documents import Corpus, Span, builtin_corpus, open_files
from generative.data.drifting import drifting_files
from generative.data.hub import open_hub, resolve_revision
from generative.data.manifest import MANIFEST, Manifest, Shard
from generative.data.split import batches, cut_into_shards, split, whole
from generative.data.tokenise import Task, Work, run_tasks, scan_characters, tokenise_shard
from generative.data.tokenizers import UNKNOWN, CharacterTokenizer, Tokenizer, learned_tokenizer, open_tokenizer
from generative.errors import ConfigError, DataError

SHARD_BYTES = 16 << 20
"""Text in a shard: a few seconds of work, which is what an interruption costs."""
MOST_SHARDS = 4096
"""A larger corpus gets larger shards, since each one is a file and a memory map."""

Progress = Callable[[int, int], None]
"""Called with the bytes of text that are done, and all."""


def prepare_text(
    config: TextDataConfig,
    cache: Path | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    verify: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """The folder of token shards for a text source; made if it is not there, at once if it is.

    Args:
        config: which text, which tokenizer, what to hold out.
        cache: parent of all prepared folders; `config.cache` wins over it (None: `default_cache()`).
        workers: processes (None: as many as pay off).
        progress: told how far it is.
        verify: also read every byte of what is there already and compare hashes; damaged data is made again.
        shard_bytes: text in a shard.

    Raises:
        DataError: missing or empty text, no UTF-8, unknown tokenizer, a full disk.
        ConfigError: a source that is not prepared (shards, streaming).
    """
    job = Job.open(config)
    tell = progress or (lambda done, total: None)
    return make_once(
        (config.cache or cache or default_cache()) / job.key,
        lambda folder: _complete(folder, verify),
        lambda partial: job.build(partial, workers, tell, shard_bytes),
    )


def prepared_folder(config: TextDataConfig, cache: Path | None = None) -> Path | None:
    """The folder that `prepare_text` has made already, or None; arguments and errors as there."""
    folder = (config.cache or cache or default_cache()) / Job.open(config).key
    return folder if _complete(folder, verify=False) else None


def _complete(folder: Path, verify: bool) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    try:
        Manifest.read(folder).check(folder, hashes=verify)
    except DataError:
        return False
    return True


@dataclass(frozen=True)
class Job:
    """What has to be tokenised: `held_out` is a corpus of its own, or None where a part of `corpus` is held out."""

    config: BuiltinTextConfig | FilesTextConfig | HubTextConfig
    corpus: Corpus
    held_out: Corpus | None
    tokenizer: Mapping[str, Any]

    @staticmethod
    def open(config: TextDataConfig) -> Job:
        """The job of a configuration; the text is found but not read."""
        if isinstance(config, BuiltinTextConfig):
            return Job(config, builtin_corpus(config), None, tokenizer_identity(config))
        if isinstance(config, DriftingTextConfig):
            config = drifting_files(config)
        if isinstance(config, FilesTextConfig):
            corpus, held_out = open_files(config)
            return Job(config, corpus, held_out, tokenizer_identity(config))
        if isinstance(config, HubTextConfig) and not config.streaming:
            rows, held_out_rows = open_hub(config)
            return Job(config, rows, held_out_rows, tokenizer_identity(config))
        raise ConfigError(
            f"data.name={config.name} is not prepared: it is read as it is",
            expected="builtin, files, or hub without streaming",
            remedy="leave out the preparation",
        )

    @property
    def key(self) -> str:
        """Name of the prepared folder."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:24]

    def identity(self) -> dict[str, Any]:
        """All that decides about the tokens."""
        held_out = self.held_out.identity() if self.held_out else self.config.validation_fraction
        return {
            "layout": 1,
            "text": self.corpus.identity(),
            "held_out": held_out,
            "tokenizer": dict(self.tokenizer),
        }

    def spans(self) -> dict[str, tuple[Corpus, list[Span]]]:
        """The text of each split.

        Raises:
            DataError: a split is empty.
        """
        if self.held_out:
            found = {"train": (self.corpus, whole(self.corpus)), "validation": (self.held_out, whole(self.held_out))}
        else:
            train, validation = split(self.corpus, self.config.validation_fraction)
            found = {"train": (self.corpus, train), "validation": (self.corpus, validation)}
        for name, (corpus, spans) in found.items():
            if not spans:
                raise DataError(
                    f"the {name} text is empty ({corpus.description}: {int(corpus.sizes().sum())} bytes)",
                    expected="text for training and text to hold out",
                    remedy="give more text, or correct data.path, data.column or data.validation_fraction",
                )
        return found

    def build(self, partial: Path, workers: int | None, progress: Progress, shard_bytes: int) -> None:
        """Make (or go on making) the folder `partial`, with its manifest."""
        spans = self.spans()
        total = sum(span.stop - span.start for _, some in spans.values() for span in some)
        shard_bytes = max(shard_bytes, total // MOST_SHARDS)
        begin(partial, {**self.identity(), "shard_bytes": shard_bytes})
        tasks = [
            Task(name, number, shard)
            for name, (corpus, some) in spans.items()
            for number, shard in enumerate(cut_into_shards(corpus, some, shard_bytes))
        ]
        workers = workers or _default_workers(total, len(tasks), str(self.tokenizer["name"]))
        work = Work({name: corpus for name, (corpus, _) in spans.items()}, partial, "uint16")
        tokenizer = open_tokenizer(self.config.tokenizer, self.tokenizer.get("revision"))
        tokenizer = tokenizer or learned_tokenizer(self.config.tokenizer, _training_texts(tasks, work))
        tokenizer = tokenizer or _character_tokenizer(tasks, work, workers)
        tokenizer.save(partial)
        if tokenizer.vocab_size > 1 << 16:
            work = replace(work, dtype="uint32")
        shards = _tokenise(tasks, work, workers, progress, total)
        self._finish(partial, tokenizer, work.dtype, shards)

    def _finish(self, partial: Path, tokenizer: Tokenizer, dtype: str, shards: dict[str, list[Shard]]) -> None:
        description = self.corpus.description
        Manifest(dtype, tokenizer.eos_id, tokenizer.vocab_size, shards, description, self.identity()).write(partial)
        keep = {MANIFEST, *(shard.file for some in shards.values() for shard in some)}
        for path in partial.iterdir():
            if path.name not in keep and path.suffix in (".shard", ".tmp", ".plan"):
                path.unlink()


def tokenizer_identity(config: TextDataConfig) -> dict[str, Any]:
    """JSON that changes when a tokenizer would make other tokens."""
    if config.tokenizer.name != "huggingface":
        return config.tokenizer.model_dump()
    revision = resolve_revision(config.tokenizer.id, config.tokenizer.revision, "tokenizer")
    return {"name": "huggingface", "id": config.tokenizer.id, "revision": revision}


def _default_workers(total: int, tasks: int, tokenizer: str) -> int:
    """One where starting processes (about two seconds) would cost more than it saves."""
    small = (4 << 20) if tokenizer in ("huggingface", "bpe") else (256 << 20)
    return 1 if total <= small else min(available_cores(), tasks)


def _training_texts(tasks: list[Task], work: Work) -> Iterator[str]:
    """The documents of the training text (parts of long ones)."""
    for task in (task for task in tasks if task.split == "train"):
        for group in batches(task.spans):
            yield from work.corpora[task.split].texts(group)


def _character_tokenizer(tasks: list[Task], work: Work, workers: int) -> CharacterTokenizer:
    """The characters of the training text. Where the held-out text has others, "�" is added and stands for them."""
    found: dict[str, set[str]] = {"train": set(), "validation": set()}
    for task, characters in run_tasks(scan_characters, tasks, work, workers):
        found[task.split] |= set(characters)
    unseen = {UNKNOWN} if found["validation"] - found["train"] else set()
    return CharacterTokenizer(found["train"] | unseen)


def _tokenise(tasks: list[Task], work: Work, workers: int, progress: Progress, total: int) -> dict[str, list[Shard]]:
    shards: dict[str, dict[int, Shard]] = {"train": {}, "validation": {}}
    done = 0
    progress(done, total)
    for task, shard in run_tasks(tokenise_shard, tasks, work, workers):
        shards[task.split][task.number] = shard
        done += task.bytes
        progress(done, total)
    return {name: [some[number] for number in sorted(some)] for name, some in shards.items()}
