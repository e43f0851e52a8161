from __future__ import annotations

import sys
from pathlib import Path

import pytest

from generative.data.hub import Place
from generative.data.huggingface import HuggingFaceTokenizer
from generative.errors import ConfigError, DataError, suggestion
from generative.registry import Registry


def test_a_suggestion_ends_a_sentence_or_is_nothing():
    assert suggestion("trainr", ["trainer", "data"]) == ". Did you mean trainer?"
    assert suggestion("zzz", ["trainer", "data"]) == ""


@pytest.mark.parametrize(
    ("name", "problem"),
    [("edmm", "unknown method 'edmm'. Did you mean edm?"), ("qqqqqq", "unknown method 'qqqqqq'")],
)
def test_unknown_names_read_as_sentences(name, problem):
    with pytest.raises(ConfigError) as caught:
        Registry("method", {"edm": 1})[name]
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("package", "act"),
    [
        ("datasets", lambda: Place("x", None, "train", "text", "main").load(streaming=False)),
        ("transformers", lambda: HuggingFaceTokenizer.open("x")),
    ],
)
def test_a_missing_package_is_told_in_three_parts(package, act, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError) as caught:
        act()
    assert f"package {package}, which is not installed" in caught.value.problem
    assert caught.value.expected
    assert "generative[hub]" in caught.value.remedy


def test_prepared_data_without_a_split_says_which_it_has(tmp_path: Path, monkeypatch):
    from types import SimpleNamespace

    from generative.data import text

    manifest = SimpleNamespace(splits={"train": []}, dtype="uint16")
    monkeypatch.setattr(text.Manifest, "read", lambda folder: manifest)
    with pytest.raises(DataError) as caught:
        text.open_prepared(tmp_path, None)
    assert "has the splits train" in caught.value.problem
    assert caught.value.expected
    assert caught.value.remedy
