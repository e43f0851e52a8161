"""Networks as a folder in the layout of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generative.data.tokenizers import Tokenizer
from generative.errors import ConfigError
from generative.hub.card import Card, render
from generative.hub.files import split_files, total_bytes, write_files
from generative.hub.folder import appearing, check_space
from generative.hub.tensors import SavedTensor, Source
from generative.method import Average, average_name
from generative.training.exported import CONFIG

CARD, GENERATION = "README.md", "generation_config.json"


@dataclass(frozen=True)
class Export:
    """Everything that goes into the folder.

    Args:
        source: where the weights are: a checkpoint of any strategy and number of workers, or tensors in memory.
        tensors: what is written of it.
        config: config.json.
        card: README.md.
        generation: generation_config.json; empty for none.
        tokenizer: of the model's text; None where there is none.
    """

    source: Source
    tensors: Sequence[SavedTensor]
    config: Mapping[str, Any]
    card: Card
    generation: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None

    def write(
        self, folder: Path, max_shard: int, force: bool = False, on_bytes: Callable[[int], None] = lambda count: None
    ) -> list[Path]:
        """Write the folder; it appears when everything in it is on the disk.

        Args:
            folder: checked by `check_target`.
            max_shard: bytes of a weight file; a larger tensor gets a file of its own.
            force: replace an earlier export.
            on_bytes: told the bytes of weights as they are written.

        Returns:
            the files, by name.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            ResourceError: the disk is full or cannot be written; nothing is left behind.
        """
        files = split_files(self.tensors, max_shard)
        check_space(folder, total_bytes(files))
        with appearing(folder, force) as partial:
            write_files(partial, files, self.source, on_bytes)
            write_json(partial / CONFIG, self.config)
            if self.generation:
                write_json(partial / GENERATION, self.generation)
            if self.tokenizer is not None:
                _save_tokenizer(self.tokenizer, partial)
            (partial / CARD).write_text(render(self.card), encoding="utf-8")
        return sorted(folder.iterdir())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """As people read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """As its own file; one of transformers in the files that AutoTokenizer looks for."""
    if tokenizer.name == "huggingface":
        from generative.data.huggingface import HuggingFaceTokenizer

        assert isinstance(tokenizer, HuggingFaceTokenizer)
        tokenizer.tokenizer.save_pretrained(str(folder))
    else:
        tokenizer.save(folder)


def choose_network(trained: Sequence[str], wanted: str | None) -> str:
    """The network to export: the one that is asked for, or the only one.

    Raises:
        ConfigError: no such network, or several to choose from.
    """
    if wanted is None and len(trained) == 1:
        return trained[0]
    if wanted is not None and wanted in trained:
        return wanted
    raise ConfigError(
        f"--network {wanted}: no trained network of this name"
        if wanted
        else f"the run has {len(trained)} trained networks, and one can be exported at a time",
        f"one of {', '.join(trained)}",
        "give --network and one of these names",
    )


def choose_average(kept: Sequence[Average], wanted: str) -> Average | None:
    """The average that "ema" (the first), "ema=0.999" or "ema=power-0.1" stands for; None for "trained".

    Raises:
        ConfigError: it is not one of these, or no such average is kept.
    """
    kind, _, rate = wanted.partition("=")
    rates = {average_name(value): value for value in kept}
    if wanted == "trained":
        return None
    if wanted == "ema" and kept:
        return kept[0]
    if kind == "ema" and rate in rates:
        return rates[rate]
    choices = ["trained", *(f"ema={name}" for name in rates)]
    raise ConfigError(
        f"--weights {wanted}: the network has no such weights",
        f"one of {', '.join(choices)}",
        "give one of these; averages are kept by runs with method.ema=[0.999]",
    )
