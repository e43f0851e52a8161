"""Prompts with responses as windows of tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest

from generative.data.config import PairsTextConfig
from generative.data.facts import known_facts
from generative.data.pairs import read_pairs
from generative.data.text import open_text
from generative.errors import DataError

PAIRS = [("ab", "cde"), ("", "x"), ("q" * 30, "y"), ("né", "z"), ("last", "one")]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": p, "response": r}) for p, r in PAIRS) + "\n\n", encoding="utf-8")
    return file


def test_prompt_response_and_ends_of_text(path):
    data = open_text(PairsTextConfig(path=path, sequence_length=8, validation_fraction=0.25))
    assert (len(data.train), len(data.validation)) == (3, 1)
    batch = data.train.fetch(np.array([2, 0, 1]))
    assert batch["prompt_length"].tolist() == [3, 2, 0]
    assert batch["tokens"].tolist()[1] == [*b"abcde", 256, 256, 256, 256]
    assert batch["tokens"].tolist()[0] == [*"néz".encode(), 256, 256, 256, 256, 256]
    assert data.validation.fetch(np.array([0]))["tokens"][0].tolist() == [*b"lastone", 256, 256]
    assert "1 too long" in data.description
    assert data.bytes_per_token == pytest.approx(7 / 8)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_of_unicode_do_not_end_a_line(tmp_path, end):
    """They are valid inside strings of JSON, as `ensure_ascii=False` writes them."""
    pairs = [("a\u2028b", "c\x85d"), ("\u2029", "\u00e9")]
    file = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"prompt": p, "response": r}, ensure_ascii=False) for p, r in pairs]
    file.write_bytes(end.join(["", *lines]).encode("utf-8-sig"))
    assert read_pairs(PairsTextConfig(path=file)) == pairs


def test_a_tokenizer_is_learned_from_pairs(path):
    pytest.importorskip("transformers")
    tokenizer = {"name": "bpe", "vocab_size": 300}
    config = PairsTextConfig(path=path, sequence_length=8, validation_fraction=0.25, tokenizer=tokenizer)
    data = open_text(config)
    assert known_facts(config) == data.facts
    assert data.facts.vocab_size == data.tokenizer.vocab_size <= 300
    assert data.tokenizer.decode(data.validation.fetch(np.array([0]))["tokens"][0]) == "lastone"


def test_what_is_held_out_teaches_the_tokenizer_nothing(tmp_path):
    pytest.importorskip("transformers")
    file = tmp_path / "pairs.jsonl"
    lines = [{"prompt": "", "response": word * 9} for word in ("abab", "abba", "zqzq")]
    file.write_text("\n".join(map(json.dumps, lines)))
    tokenizer = {"name": "bpe", "vocab_size": 300}
    config = PairsTextConfig(path=file, sequence_length=64, validation_fraction=0.3, tokenizer=tokenizer)
    encode = open_text(config).tokenizer.encode
    assert len(encode("abababab")) < 8
    assert len(encode("zqzqzqzq")) == 8


def test_pairs_of_the_last_part_that_do_not_fit_take_none_from_the_rest(path):
    data = open_text(PairsTextConfig(path=path, sequence_length=8, validation_fraction=0.6))
    assert (len(data.train), len(data.validation)) == (2, 2)
    with pytest.raises(DataError, match="4 of 5 pairs fit a window of 8 tokens, 0 of them before the last part"):
        open_text(PairsTextConfig(path=path, sequence_length=8, validation_fraction=0.95))


@pytest.mark.parametrize(
    ("text", "changes", "match"),
    [
        ('{"prompt": "a"}', {}, "line 1"),
        ('{"prompt": "a", "response": 3}', {}, "not text"),
        ("nonsense", {}, "line 1"),
        ('{"prompt": "a", "response": "b"}', {}, "1 of 1 pairs"),
        ('{"prompt": "a", "response": "b"}', {"tokenizer": {"name": "characters"}}, "no end of text"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, changes, match):
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=match):
        open_text(PairsTextConfig(path=file, sequence_length=8, **changes))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        open_text(PairsTextConfig(path=tmp_path / "nowhere.jsonl", sequence_length=8))
