"""From a configuration to samples: what is held out, bits per byte, the built-in corpus, early errors."""

import math

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from generative.config import to_yaml
from generative.data.config import BuiltinTextConfig, FilesTextConfig, ShardsTextConfig, TextDataConfig
from generative.data.documents import builtin_corpus
from generative.data.loader import Loader
from generative.data.prepare import prepare_text
from generative.data.text import describe, open_text
from generative.errors import ConfigError, DataError


def all_tokens(source):
    return source.fetch(np.arange(len(source)))["tokens"]


def test_one_text_is_split_at_nine_tenths_into_windows(tmp_path):
    # The protocol of the character-level Shakespeare benchmark: 1,115,394 characters, 1742 held-out windows of 64.
    text = "".join(chr(97 + i * i % 26) for i in range(1_115_394))
    (tmp_path / "input.txt").write_text(text)
    config = FilesTextConfig(path=tmp_path / "input.txt", sequence_length=64, tokenizer={"name": "characters"})
    data = open_text(config, tmp_path / "cache")
    assert len(data.validation) == 1742
    assert data.tokenizer.decode(all_tokens(data.validation)[0]) == text[1_003_854 : 1_003_854 + 65]
    assert data.tokenizer.decode(all_tokens(data.train)[-1]) == text[1_003_776:1_003_841]
    assert data.bytes_per_token == 1
    assert (data.facts.vocab_size, data.facts.sequence_length) == (len(set(text)), 64)


def test_bits_per_byte_count_the_ends_of_documents(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("aé" * 3)
    data = open_text(FilesTextConfig(path=tmp_path, sequence_length=4), tmp_path / "cache")
    assert data.bytes_per_token == 9 / 10  # nine bytes and the end
    # A model that gives each token 1/257 pays for the end without getting a byte for it.
    assert data.bits_per_byte(math.log(257)) == pytest.approx(math.log2(257) * 10 / 9)


def test_validation_windows_do_not_overlap_whatever_the_training_stride(tmp_path):
    (tmp_path / "a.txt").write_text("".join(map(chr, range(33, 127))) * 3)
    data = open_text(FilesTextConfig(path=tmp_path, sequence_length=5, stride=1), tmp_path / "cache")
    assert len(data.train) == int(282 * 0.9) - 5
    predicted = all_tokens(data.validation)[:, 1:].flatten()
    held_out = (tmp_path / "a.txt").read_bytes()[int(282 * 0.9) :] + b"\0"
    assert data.tokenizer.decode(predicted).encode() == held_out[1 : 1 + len(predicted)]


def test_documents_are_told_apart_where_asked(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text("abc")
    config = FilesTextConfig(path=tmp_path, sequence_length=5, separate_documents=True, validation_fraction=0.3)
    data = open_text(config, tmp_path / "cache")
    eos = data.tokenizer.eos_id
    for source in (data.train, data.validation.once()):
        found = source.fetch(np.arange(len(source)))
        for tokens, document in zip(found["tokens"].tolist(), found["document"].tolist(), strict=True):
            # A document goes up to its end of text; each window counts from 0.
            assert document == [tokens[:place].count(eos) for place in range(6)]
    # The same prepared tokens serve both.
    plain = open_text(config.model_copy(update={"separate_documents": False}), tmp_path / "cache")
    assert plain.fingerprint == data.fingerprint
    assert set(plain.train.fetch(np.arange(1))) == {"tokens"}
    assert len(list((tmp_path / "cache").glob("*/"))) == 1


def test_documents_without_an_end_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 40)
    config = FilesTextConfig(
        path=tmp_path, sequence_length=5, separate_documents=True, tokenizer={"name": "characters"}
    )
    with pytest.raises(ConfigError, match="no end of text"):
        open_text(config, tmp_path / "cache")


def test_named_held_out_files_are_used(tmp_path):
    (tmp_path / "a.txt").write_text("training text")
    (tmp_path / "b.txt").write_text("held-out text")
    config = FilesTextConfig(path=tmp_path / "a.txt", validation_path=tmp_path / "b.txt", sequence_length=12)
    data = open_text(config, tmp_path / "cache")
    assert data.tokenizer.decode(all_tokens(data.train)[0]) == "training text"
    assert data.tokenizer.decode(all_tokens(data.validation)[0]) == "held-out text"


@pytest.mark.parametrize("part", ["training", "held-out"])
def test_text_shorter_than_a_window_is_refused(tmp_path, part):
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    length = {"training": 90, "held-out": 11}[part]
    with pytest.raises(DataError, match=rf"{part} text has \d+ tokens, fewer than the {length + 1} of one window"):
        open_text(FilesTextConfig(path=tmp_path, sequence_length=length), tmp_path / "cache")
    open_text(FilesTextConfig(path=tmp_path, sequence_length=10), tmp_path / "cache")


def test_prepared_shards_are_opened_by_path_and_checked(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    folder = prepare_text(FilesTextConfig(path=tmp_path), tmp_path / "cache")
    config = ShardsTextConfig(path=folder, sequence_length=7)
    data = open_text(config, verify=True)
    same = open_text(FilesTextConfig(path=tmp_path, sequence_length=7), tmp_path / "cache")
    assert all_tokens(data.train).equal(all_tokens(same.train))
    assert data.fingerprint == same.fingerprint
    shard = folder / "train-00000.bin"
    damaged = bytearray(shard.read_bytes())
    damaged[3] ^= 255
    shard.write_bytes(damaged)
    with pytest.raises(DataError, match="sha256"):
        open_text(config, verify=True)
    shard.write_bytes(damaged[:-1])
    with pytest.raises(DataError, match="bytes, where"):
        open_text(config)
    with pytest.raises(DataError, match="no such folder"):
        open_text(ShardsTextConfig(path=tmp_path / "none"))
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_text(ShardsTextConfig(path=tmp_path))


def test_builtin_corpus_is_real_text_under_its_caps(tmp_path):
    everything = builtin_corpus(BuiltinTextConfig())
    assert "argparse.py" in {path.name for path in everything.paths}
    assert not [
        p for p in everything.paths if {"test", "tests", "site-packages"} & set(p.relative_to(everything.root).parts)
    ]
    few = builtin_corpus(BuiltinTextConfig(max_documents=20))
    small = builtin_corpus(BuiltinTextConfig(max_bytes=300_000))
    assert len(few.paths) == 20
    assert 100_000 < small.sizes().sum() <= 300_000
    assert set(small.paths) < set(everything.paths)
    assert list(small.paths) == [p for p in everything.paths if p in set(small.paths)]
    assert builtin_corpus(BuiltinTextConfig(max_bytes=300_000)).identity() == small.identity()
    with pytest.raises(DataError, match="built-in corpus is empty"):
        builtin_corpus(BuiltinTextConfig(max_bytes=1))


def test_builtin_text_trains_through_a_loader_with_workers(tmp_path):
    config = BuiltinTextConfig(max_bytes=300_000, sequence_length=64)
    data = open_text(config, tmp_path / "cache")
    assert 0.05 < len(data.validation) / len(data.train) < 0.15
    assert 0.99 < data.bytes_per_token < 1
    batches = []
    for workers in (0, 1):
        with Loader(data.train, batch_size=6, micro_batch_size=3, seed=0, workers=workers) as loader:
            batches.append([batch["tokens"] for _ in range(3) for batch in next(loader).micro_batches])
    assert all(a.equal(b) for a, b in zip(*batches, strict=True))
    assert batches[0][0].shape == (3, 65)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": "builtin"}, "sources of the Python library, bytes tokens, windows of 128"),
        ({"name": "files", "path": "/x/a.txt"}, "files a.txt, bytes tokens, windows of 128"),
        (
            {"name": "hub", "id": "someone/texts", "config": "en", "tokenizer": {"name": "huggingface", "id": "gpt2"}},
            "hub data someone/texts/en train.text, gpt2 tokens, windows of 128",
        ),
        ({"name": "shards", "path": "/x/y", "sequence_length": 9}, "token shards y, bytes tokens, windows of 9"),
    ],
)
def test_describe_is_one_line(values, expected):
    assert describe(TypeAdapter(TextDataConfig).validate_python(values)) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"name": "book"},
        {"name": "files"},
        {"name": "builtin", "sequence_length": 0},
        {"name": "builtin", "stride": 0},
        {"name": "builtin", "validation_fraction": 1},
        {"name": "builtin", "tokenizer": {"name": "words"}},
        {"name": "builtin", "path": "x"},
    ],
)
def test_wrong_settings_are_refused(values):
    with pytest.raises(ValidationError):
        TypeAdapter(TextDataConfig).validate_python(values)


def test_paths_are_absolute_and_settings_survive_yaml(tmp_path, monkeypatch):
    import yaml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    adapter = TypeAdapter(TextDataConfig)
    config = adapter.validate_python({"name": "files", "path": "a.txt", "tokenizer": {"name": "characters"}})
    assert config.path == tmp_path / "a.txt"
    assert adapter.validate_python({"name": "hub", "id": "local"}).id == str(tmp_path / "local")
    assert adapter.validate_python({"name": "hub", "id": "some/where"}).id == "some/where"
    assert adapter.validate_python(yaml.safe_load(to_yaml(config))) == config
