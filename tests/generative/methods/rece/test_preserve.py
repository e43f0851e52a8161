from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from generative.errors import DataError
from generative.methods.rece.preserve import BATCH, Kept, accumulate, cached, content_hash, read_texts
from generative.methods.rece.tokens import Prompt
from tests.generative.methods.rece.texts import prompt

TEXTS = [f"word {i}" for i in range(2 * BATCH + 3)]


def encode(texts: Sequence[str]) -> list[Prompt]:
    return [prompt(text, 5) for text in texts]


def test_any_number_of_texts_is_one_sum() -> None:
    told: list[int] = []
    found = accumulate(iter(TEXTS), encode, "whole", 5, told.append)
    rows = torch.cat([prompt(text, 5).rows for text in TEXTS])
    torch.testing.assert_close(found.gram, rows.T @ rows, rtol=1e-12, atol=1e-12)
    assert (found.texts, told) == (len(TEXTS), [BATCH, 2 * BATCH, len(TEXTS)])
    parts = [accumulate(TEXTS[i::3], encode, "whole", 5) for i in (2, 0, 1)]
    merged = parts[0].plus(parts[1]).plus(parts[2])
    torch.testing.assert_close(merged.gram, found.gram, rtol=1e-12, atol=1e-12)
    assert merged.texts == found.texts
    assert accumulate([], encode, "last", 5).texts == 0


def test_last_tokens() -> None:
    found = accumulate(TEXTS[:2], encode, "last", 5)
    rows = torch.stack([prompt(text, 5).rows[2] for text in TEXTS[:2]])
    torch.testing.assert_close(found.gram, rows.T @ rows)


def test_name_of_a_sum() -> None:
    base = content_hash(TEXTS, "clip", "whole")
    assert content_hash(reversed(TEXTS), "clip", "whole") == base
    others = [
        content_hash(TEXTS[1:], "clip", "whole"),
        content_hash([*TEXTS, TEXTS[0]], "clip", "whole"),
        content_hash(TEXTS, "t5", "whole"),
        content_hash(TEXTS, "clip", "last"),
    ]
    assert len({base, *others}) == 5


def test_cache(tmp_path: Path) -> None:
    calls = []

    def make() -> Kept:
        calls.append(1)
        return Kept(torch.eye(3, dtype=torch.float64) / 3, 7)

    key = content_hash(["a"], "clip", "whole")
    first = cached(tmp_path / "new", key, make)
    again = cached(tmp_path / "new", key, make)
    assert (len(calls), again.texts) == (1, 7)
    assert torch.equal(first.gram, again.gram)
    next((tmp_path / "new").iterdir()).write_bytes(b"damaged")
    assert cached(tmp_path / "new", key, make).texts == 7
    assert len(calls) == 2


def test_files_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "keep.txt"
    path.write_text("# words\nan oak\n\n  monet \n")
    assert list(read_texts(path)) == ["an oak", "monet"]
    with pytest.raises(DataError, match="cannot be read as texts to keep"):
        list(read_texts(tmp_path / "none.txt"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        list(read_texts(path))
