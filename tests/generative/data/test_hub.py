"""Data sets in hub layout, offline: prepared and streamed, pinned, resumed, and refused with a reason."""

import json
import sys

import numpy as np
import pytest

from generative.data import hub
from generative.data.config import HubTextConfig
from generative.data.hub import Place, resolve_revision
from generative.data.loader import Loader
from generative.data.prepare import prepare_text
from generative.data.text import open_text
from generative.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No network, and a cache of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def document(shard, row):
    return None if row == 3 else f"<{shard}.{row}>" + "naïve " * (row + 1)


@pytest.fixture
def folder(tmp_path):
    """Three parquet files of 8 rows for training, and one of 4 rows for validation."""
    data = tmp_path / "texts" / "data"
    data.mkdir(parents=True)
    for shard in range(3):
        rows = {"text": [document(shard, row) for row in range(8)], "number": list(range(8))}
        parquet.write_table(pyarrow.table(rows), data / f"train-{shard:05d}-of-00003.parquet")
    rows = {"text": [f"held out {i} " * 5 for i in range(4)], "number": list(range(4))}
    parquet.write_table(pyarrow.table(rows), data / "validation-00000-of-00001.parquet")
    return tmp_path / "texts"


def training_documents():
    return sorted(text for shard in range(3) for row in range(8) if (text := document(shard, row)))


def documents_in(ids):
    """The texts that end in this sequence of byte tokens."""
    ids = list(ids)
    ends = [i for i, token in enumerate(ids) if token == 256]
    starts = [0, *(end + 1 for end in ends)]
    return [bytes(ids[start:end]).decode("utf-8", "replace") for start, end in zip(starts, ends, strict=False)]


def test_map_style_rows_become_documents(folder, tmp_path):
    config = HubTextConfig(id=str(folder), sequence_length=16, validation_fraction=0.2)
    path = prepare_text(config, tmp_path / "cache", shard_bytes=200)
    files = sorted(path.glob("train*.bin")), sorted(path.glob("validation*.bin"))
    ids = [np.concatenate([np.fromfile(file, "<u2") for file in some]).tolist() for some in files]
    train, held_out = documents_in(ids[0]), documents_in(ids[1])
    assert sorted(train + held_out) == training_documents()
    assert held_out
    data = open_text(config, tmp_path / "cache")
    assert data.description == "hub data texts train.text, bytes tokens, windows of 16"
    assert 0.9 < data.bytes_per_token < 1


def test_a_named_split_is_held_out(folder, tmp_path):
    config = HubTextConfig(id=str(folder), sequence_length=16, validation_split="validation")
    for data in (open_text(config, tmp_path / "cache"), open_text(config.model_copy(update={"streaming": True}))):
        text = data.tokenizer.decode(data.validation.fetch(np.arange(3))["tokens"][:, 1:].flatten())
        assert ("h" + text).startswith("held out 0 " * 4)


def test_json_lines_are_read_too(tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    lines = [json.dumps({"content": f"document {i}"}) for i in range(10)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    config = HubTextConfig(id=str(folder), column="content", sequence_length=4)
    data = open_text(config, tmp_path / "cache")
    assert len(data.train) + len(data.validation) >= 10 * 11 // 4 - 2


def rows_of(loader, steps):
    return [row for _ in range(steps) for batch in next(loader).micro_batches for row in batch["tokens"].tolist()]


def test_streamed_epoch_has_every_training_document_once_and_no_held_out_one(folder):
    config = HubTextConfig(id=str(folder), streaming=True, sequence_length=1, shuffle_windows=1, lanes=1)
    data = open_text(config.model_copy(update={"validation_fraction": 0.3}))
    held_out = documents_in([*data.validation.windows[:, 0].tolist(), int(data.validation.windows[-1, 1])])
    train_text = [text for text in training_documents() if text not in held_out]
    assert held_out
    loader = Loader(data.train, batch_size=1, seed=0)
    total = sum(len(text.encode()) + 1 for text in train_text)
    assert sorted(documents_in(row[0] for row in rows_of(loader, total))) == train_text


@pytest.mark.parametrize("workers", [0, 1])
def test_streams_resume_in_another_world(quick_workers, folder, workers):
    data = open_text(HubTextConfig(id=str(folder), streaming=True, sequence_length=8, shuffle_windows=4))
    assert len(data.train.shards) == 3
    expected = rows_of(Loader(data.train, batch_size=5, seed=0), 12)
    with Loader(data.train, batch_size=5, seed=0, workers=workers) as loader:
        before = rows_of(loader, 7)
        state = json.loads(json.dumps(loader.state()))
    ranks = [Loader(data.train, batch_size=5, seed=0, rank=r, world=2, state=state) for r in range(2)]
    after = []
    for _ in range(5):
        for rank in ranks:
            share = next(rank)
            after += [r for b in share.micro_batches for r in b["tokens"][b["valid"]].tolist()]
    assert before + after == expected


def test_folders_are_pinned_by_their_files_and_names_by_their_commit(folder, monkeypatch):
    before = resolve_revision(str(folder), None, "dataset")
    assert resolve_revision(str(folder), "main", "dataset") == before
    (folder / "README.md").write_text("changed")
    assert resolve_revision(str(folder), None, "dataset") != before
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert resolve_revision("someone/texts", commit, "dataset") == commit
    asked = []

    class Api:
        def repo_info(self, name, repo_type, revision):
            asked.append((name, repo_type, revision))
            return type("Info", (), {"sha": commit})

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert resolve_revision("someone/words", "v2", "tokenizer") == commit
    assert asked == [("someone/words", "model", "v2")]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_resolved_commit_is_what_is_loaded(monkeypatch, streaming):
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return datasets.Dataset.from_dict({"text": ["a"]})

    monkeypatch.setattr("datasets.load_dataset", load)
    Place("someone/texts", "en", "train", "text", "c0ffee").load(streaming)
    assert calls == [(("someone/texts", "en"), {"split": "train", "revision": "c0ffee", "streaming": streaming})]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "nope"}, "nope"),
        ({"column": "txt"}, "no column 'txt'"),
        ({"column": "number"}, "holds int in row"),
        ({"config": "other"}, "other"),
        ({"id": "/nowhere/at/all"}, "no such folder"),
        ({"id": "nobody/nothing"}, "dataset 'nobody/nothing'"),
    ],
)
def test_data_that_cannot_be_loaded_is_refused(folder, tmp_path, options, message, streaming):
    with pytest.raises(DataError, match=message):
        open_text(HubTextConfig(**{"id": str(folder), "streaming": streaming, **options}), tmp_path / "cache")


def test_a_stream_without_held_out_text_or_with_characters_is_refused(folder):
    with pytest.raises(DataError, match="held-out part"):
        open_text(HubTextConfig(id=str(folder), streaming=True, sequence_length=10_000))
    with pytest.raises(ConfigError, match="characters"):
        open_text(HubTextConfig(id=str(folder), streaming=True, tokenizer={"name": "characters"}))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"generative\[hub\]"):
        hub.Place("x", None, "train", "text", "r").load(False)
