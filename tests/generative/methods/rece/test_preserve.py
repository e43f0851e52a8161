from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from generative.errors import DataError
from generative.methods.rece.preserve import Kept, cached, content_hash, read_texts
from generative.methods.rece.request import keep_sums
from generative.methods.rece.tokens import Prompt
from tests.generative.methods.rece.texts import prompt

TEXTS = [f"word {i}" for i in range(11)]


def encode(texts: Sequence[str]) -> dict[str, list[Prompt]]:
    return {"text": [prompt(text, 5) for text in texts], "pooled": [prompt(text, 4) for text in texts]}


def test_any_number_of_texts_is_one_sum() -> None:
    found = keep_sums(iter(TEXTS), encode, ["whole", "last"], batch=4)
    rows = torch.cat([prompt(text, 5).rows for text in TEXTS])
    torch.testing.assert_close(found["text", "whole"].gram, rows.T @ rows, rtol=1e-12, atol=1e-12)
    lasts = torch.stack([prompt(text, 5).rows[2] for text in TEXTS])
    torch.testing.assert_close(found["text", "last"].gram, lasts.T @ lasts, rtol=1e-12, atol=1e-12)
    assert {kept.texts for kept in found.values()} == {len(TEXTS)}
    assert found["pooled", "whole"].gram.shape == (4, 4)
    parts = [keep_sums(TEXTS[i::3], encode, ["whole"]) for i in (2, 0, 1)]
    merged = parts[0]["text", "whole"].plus(parts[1]["text", "whole"]).plus(parts[2]["text", "whole"])
    torch.testing.assert_close(merged.gram, found["text", "whole"].gram, rtol=1e-12, atol=1e-12)
    assert merged.texts == len(TEXTS)
    assert keep_sums([], encode, ["last"]) == {}


def test_name_of_a_sum() -> None:
    base = content_hash(TEXTS, "clip", ["whole"])
    assert content_hash(reversed(TEXTS), "clip", ["whole"]) == base
    others = [
        content_hash(TEXTS[1:], "clip", ["whole"]),
        content_hash([*TEXTS, TEXTS[0]], "clip", ["whole"]),
        content_hash(TEXTS, "t5", ["whole"]),
        content_hash(TEXTS, "clip", ["last"]),
    ]
    assert len({base, *others}) == 5


def test_cache(tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, Kept]:
        calls.append(1)
        return {"text/last": Kept(torch.eye(3, dtype=torch.float64) / 3, 7)}

    key = content_hash(["a"], "clip", ["whole"])
    first = cached(tmp_path / "new", key, make)
    again = cached(tmp_path / "new", key, make)
    assert (len(calls), again["text/last"].texts) == (1, 7)
    assert torch.equal(first["text/last"].gram, again["text/last"].gram)
    next((tmp_path / "new").iterdir()).write_bytes(b"damaged")
    assert cached(tmp_path / "new", key, make)["text/last"].texts == 7
    assert len(calls) == 2


def test_files_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "keep.txt"
    path.write_text("# words\nan oak\n\n  monet \n")
    assert list(read_texts(path)) == ["an oak", "monet"]
    path.write_text("# words\nan oak\n", encoding="utf-8-sig")
    assert list(read_texts(path)) == ["an oak"]
    with pytest.raises(DataError, match="cannot be read as texts to keep"):
        list(read_texts(tmp_path / "none.txt"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        list(read_texts(path))
