"""What is to stay as it is: texts of any number as one sum over their tokens' embeddings, kept on the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from generative.data.cache import disk_errors
from generative.data.files import text_lines, write_aside
from generative.errors import DataError
from generative.methods.rece.config import StepConfig
from generative.methods.rece.tokens import Prompt, Variant, preserved


@dataclass(frozen=True)
class Kept:
    """Sum of c_j c_j^T over the tokens of texts.

    Args:
        gram: float64[d, d].
        texts: number of them, with repeats.
    """

    gram: Tensor
    texts: int

    @staticmethod
    def nothing(width: int) -> Kept:
        """No texts."""
        return Kept(torch.zeros(width, width, dtype=torch.float64), 0)

    @staticmethod
    def of(variant: Variant, prompts: Iterable[Prompt], width: int) -> Kept:
        """From embeddings."""
        found = Kept.nothing(width)
        for prompt in prompts:
            rows = preserved(variant, prompt)
            found = Kept(torch.addmm(found.gram, rows.T, rows), found.texts + 1)
        return found

    def plus(self, other: Kept) -> Kept:
        """Both sets of texts: parts may be summed by different workers, in any order."""
        return Kept(self.gram + other.gram, self.texts + other.texts)

    def times(self, number: int) -> Kept:
        """Every text so many times."""
        return Kept(self.gram * number, self.texts * number)

    def weighed(self, step: StepConfig) -> Tensor:
        """Sum of s_p c_j c_j^T, float64[d, d]."""
        return self.gram * step.preserve(self.texts)


def content_hash(texts: Iterable[str], encoder: str, variants: Sequence[Variant]) -> str:
    """Names sums: the texts in any order, what encodes them, and which tokens count."""
    total = 0
    count = 0
    for text in texts:  # a sum of hashes, so that neither order nor the number of texts in memory matters
        total += int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        count += 1
    told = json.dumps(
        {"texts": f"{total % 2**256:064x}", "count": count, "encoder": encoder, "variants": sorted(variants)}
    )
    return hashlib.sha256(told.encode()).hexdigest()


def cached(folder: Path, key: str, make: Callable[[], Mapping[str, Kept]]) -> dict[str, Kept]:
    """Sums of that name from the disk, or made and put there.

    Raises:
        DataError: the cache cannot be written, and whatever `make` raises.
    """
    path = folder / f"kept-{key[:32]}.safetensors"
    if path.is_file() and (found := _read(path, key)) is not None:
        return found
    made = dict(make())
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(path, _bytes(made, key))
    return made


def _bytes(sums: Mapping[str, Kept], key: str) -> bytes:
    from safetensors.torch import save

    told = {"key": key, "texts": json.dumps({name: kept.texts for name, kept in sums.items()})}
    data: bytes = save({name: kept.gram.contiguous() for name, kept in sums.items()}, metadata=told)
    return data


def _read(path: Path, key: str) -> dict[str, Kept] | None:
    """None: damaged, or of another name; it is then made again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            if told.get("key") != key:
                return None
            return {name: Kept(file.get_tensor(name), int(n)) for name, n in json.loads(told["texts"]).items()}
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def read_texts(path: Path) -> Iterator[str]:
    """Texts of a file, one a line; empty lines and those that begin with # are passed over.

    Raises:
        DataError: no such file, no text (UTF-8), or a pipe, which would be empty when it is read again.
    """
    if path.is_fifo():
        raise DataError(
            f"{path} is a pipe, and texts to keep are read more than once", "a file", "write them to a file first"
        )
    try:
        for text in text_lines(path):
            if text.strip() and not text.startswith("#"):
                yield text.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as texts to keep ({error})",
            expected="a file of UTF-8 text, one prompt a line",
            remedy="correct --preserve",
        ) from error
