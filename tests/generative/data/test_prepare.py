"""Preparation: right tokens, whatever is killed or runs at once; damage is found and mended; errors are clear."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from generative.data.config import (
    FilesTextConfig,
    HuggingFaceTokenizerConfig,
    LearnedTokenizerConfig,
    ShardsTextConfig,
)
from generative.data.manifest import Manifest
from generative.data.prepare import prepare_text
from generative.data.tokenizers import load_tokenizer
from generative.errors import ConfigError, DataError
from tests.support.fork_server import context
from tests.support.leftovers import wait_until_gone


@pytest.fixture
def config(tmp_path):
    """Twelve files of 1 to 12 lines."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(f"file {number:02d}, sähe\n" * (number + 1))
    return FilesTextConfig(path=folder, validation_fraction=0.2)


def tokens(folder, split):
    manifest = Manifest.read(folder)
    return [i for s in manifest.splits[split] for i in np.fromfile(folder / s.file, "<u2").tolist()]


def read_back(folder):
    """Documents of both splits, from the tokens."""
    ids = tokens(folder, "train") + tokens(folder, "validation")
    return sorted(bytes(map(int, part.split())).decode() for part in " ".join(map(str, ids)).split(" 256")[:-1])


def test_tokens_are_the_documents_each_with_its_end(config, tmp_path):
    folder = prepare_text(config, tmp_path / "cache")
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())
    manifest = Manifest.read(folder)
    text_bytes = sum(p.stat().st_size for p in config.path.iterdir())
    assert manifest.total("train", "bytes") + manifest.total("validation", "bytes") == text_bytes
    assert manifest.total("train", "documents") + manifest.total("validation", "documents") == 12
    assert manifest.total("train", "tokens") + manifest.total("validation", "tokens") == text_bytes + 12
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["manifest.json", "generative_tokenizer.json", "train-00000.bin", "validation-00000.bin"]
    )


@pytest.mark.parametrize(("shard_bytes", "workers"), [(1, 1), (100, 1), (300, 2)])
def test_shards_and_processes_change_no_token(config, tmp_path, shard_bytes, workers):
    whole = prepare_text(config, tmp_path / "one")
    seen = []
    cut = prepare_text(
        config, tmp_path / "many", shard_bytes=shard_bytes, workers=workers, progress=lambda *p: seen.append(p)
    )
    assert len(Manifest.read(cut).splits["train"]) > 2
    for split in ("train", "validation"):
        assert tokens(cut, split) == tokens(whole, split)
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert (done[0], done[-1]) == (0, totals[0])
    assert len(set(totals)) == 1


def test_a_second_call_writes_nothing(config, tmp_path):
    folder = prepare_text(config, tmp_path / "cache")
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert prepare_text(config, tmp_path / "cache", progress=pytest.fail, verify=True) == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_changed_text_or_split_is_prepared_anew(config, tmp_path):
    first = prepare_text(config, tmp_path / "cache")
    other = prepare_text(config.model_copy(update={"validation_fraction": 0.5}), tmp_path / "cache")
    same = prepare_text(config.model_copy(update={"sequence_length": 3, "stride": 2}), tmp_path / "cache")
    (config.path / "new.txt").write_text("more")
    changed = prepare_text(config, tmp_path / "cache")
    assert first == same
    assert len({first, other, changed}) == 3


def test_an_interrupted_preparation_goes_on_after_its_finished_shards(config, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done > total / 2:
            raise StopError

    with pytest.raises(StopError):
        prepare_text(config, tmp_path / "cache", shard_bytes=100, progress=stop)
    (partial,) = (tmp_path / "cache").glob("*.partial")
    before = {p.name: p.stat().st_ino for p in partial.glob("*.bin")}
    assert before
    damaged = min(before)
    (partial / damaged).write_bytes(b"x" * (partial / damaged).stat().st_size)
    folder = prepare_text(config, tmp_path / "cache", shard_bytes=100)
    after = {name: (folder / name).stat().st_ino for name in before}
    assert [name for name in before if before[name] != after[name]] == [damaged]
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_an_attempt_with_another_plan_is_started_afresh(config, tmp_path):
    with pytest.raises(ZeroDivisionError):
        prepare_text(config, tmp_path / "cache", shard_bytes=100, progress=lambda done, _: 1 // (done == 0))
    folder = prepare_text(config, tmp_path / "cache", shard_bytes=250)
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())
    assert {p.name for p in folder.glob("*.bin")} == {
        s.file for shards in Manifest.read(folder).splits.values() for s in shards
    }


SCRIPT = """
import json, os, signal, sys
import psutil
from generative.data.config import FilesTextConfig
from generative.data.prepare import prepare_text

def progress(done, total):
    if os.environ.get("KILL") and 0 < done < total:
        children = [p.pid for p in psutil.Process().children(recursive=True)]
        print(json.dumps(children), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    config = FilesTextConfig.model_validate_json(sys.argv[1])
    prepare_text(config, __import__("pathlib").Path(sys.argv[2]),
                 workers=int(sys.argv[3]), shard_bytes=100, progress=progress)
"""


def start_script(tmp_path, config, cache, workers, **env):
    """From a file, which spawned processes need."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), config.model_dump_json(), str(cache), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})


def test_a_killed_preparation_leaves_no_process_and_can_go_on(config, tmp_path):
    cache = tmp_path / "cache"
    killed = start_script(tmp_path, config, cache, 2, KILL="1")
    out, _ = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not list(cache.glob("*/manifest.json"))
    wait_until_gone(json.loads(out), "a process outlived the killed preparation")
    folder = prepare_text(config, cache, shard_bytes=100)
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())


def prepare_with_others(barrier, said, config, cache):
    barrier.wait(60)
    said.put(prepare_text(config, cache, workers=1, shard_bytes=100))


def test_two_preparations_at_once_end_in_one_folder(config, tmp_path):
    processes = context()
    shared = processes.Barrier(2), processes.SimpleQueue(), config, tmp_path / "cache"
    both = [processes.Process(target=prepare_with_others, args=shared) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    (folder,) = {shared[1].get() for _ in both}
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {folder.name, f"{folder.name}.lock"}


def test_without_locks_the_first_to_finish_wins(config, tmp_path, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", no_lock)
    inner = []

    def other_process(done, total):
        if not inner:
            inner.append(None)
            monkeypatch.setattr(os, "getpid", lambda: 1)
            inner.append(prepare_text(config, tmp_path / "cache"))
            monkeypatch.undo()

    monkeypatch.setattr("fcntl.flock", no_lock)
    folder = prepare_text(config, tmp_path / "cache", progress=other_process)
    assert inner[1] == folder
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_damage_in_the_cache_is_mended(config, tmp_path):
    folder = prepare_text(config, tmp_path / "cache")
    good = tokens(folder, "train")
    shard = folder / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    assert tokens(prepare_text(config, tmp_path / "cache"), "train") == good
    shard.write_bytes(bytes(len(good) * 2))
    assert tokens(prepare_text(config, tmp_path / "cache", verify=True), "train") == good
    (folder / "manifest.json").write_text("{")
    assert tokens(prepare_text(config, tmp_path / "cache"), "train") == good
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {folder.name, f"{folder.name}.lock"}


def test_a_full_disk_is_told_and_what_is_finished_stays(config, tmp_path, monkeypatch):
    calls, fsync = [], os.fsync

    def full(fd):
        calls.append(fd)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"No space left[\s\S]*data\.cache"):
        prepare_text(config, tmp_path / "cache", shard_bytes=100)
    (partial,) = (tmp_path / "cache").glob("*.partial")
    assert not list(partial.glob("*.tmp"))
    monkeypatch.undo()
    folder = prepare_text(config, tmp_path / "cache", shard_bytes=100)
    assert read_back(folder) == sorted(p.read_text() for p in config.path.iterdir())


def test_a_cache_that_cannot_be_written_is_told(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        prepare_text(config, tmp_path / "file" / "cache")


def test_characters_come_from_the_training_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abcabcab" + "cz")
    base = {"path": path, "validation_fraction": 0.2, "tokenizer": {"name": "characters"}}
    folder = prepare_text(FilesTextConfig(**base), tmp_path / "cache")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.characters == "abc\ufffd"
    assert tokens(folder, "train") == [0, 1, 2, 0, 1, 2, 0, 1]
    assert tokens(folder, "validation") == [2, 3]
    path.write_text("abcabcab" + "ca")
    assert load_tokenizer(prepare_text(FilesTextConfig(**base), tmp_path / "cache")).characters == "abc"


def test_a_tokenizer_is_learned_from_the_training_text(tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "a.txt"
    path.write_text("the cat sat. " * 8 + "a dog ran. " * 2)
    base = {"path": path, "validation_fraction": 0.2, "tokenizer": {"name": "bpe", "vocab_size": 264}}
    config = FilesTextConfig(**base)
    folder = prepare_text(config, tmp_path / "cache")
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.vocab_size, Manifest.read(folder).vocab_size) == (264, 264)
    assert max(len(piece) for piece in tokenizer.tokenizer.get_vocab()) > 1
    assert tokenizer.decode(tokens(folder, "train")) == ("the cat sat. " * 8 + "a dog ran. " * 2)[:100]
    more = config.model_copy(update={"tokenizer": LearnedTokenizerConfig(vocab_size=265)})
    assert prepare_text(more, tmp_path / "cache") != folder


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {"path": "none.txt"}, "no such file"),
        ({}, {}, "no file fits the pattern"),
        ({"a.txt": "x"}, {"pattern": "*.md"}, r"no file fits the pattern '\*\.md'"),
        ({"a.txt": ""}, {}, "train text is empty"),
        ({"a.txt": "", "b.txt": ""}, {}, "train text is empty"),
        ({"a.txt": "text"}, {"validation_path": "none"}, "no such file"),
        ({"a.txt": "text", "val/b.md": "x"}, {"validation_path": "val", "pattern": "*.txt"}, "no file fits"),
        ({"a.txt": b"good\xffbad" * 9, "b.txt": "y"}, {}, r"a\.txt: byte 4 is not UTF-8"),
    ],
)
def test_unusable_text_is_refused(tmp_path, files, options, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    paths = {k: tmp_path / v if k.endswith("path") else v for k, v in options.items()}
    with pytest.raises(DataError, match=message):
        prepare_text(FilesTextConfig(**{"path": tmp_path, **paths}), tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*/manifest.json"))


def test_what_is_not_prepared_or_has_no_tokenizer_is_refused(config, tmp_path):
    with pytest.raises(ConfigError, match="not prepared"):
        prepare_text(ShardsTextConfig(path=tmp_path), tmp_path / "cache")
    lost = HuggingFaceTokenizerConfig(id=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"tokenizer.*no such folder"):
        prepare_text(config.model_copy(update={"tokenizer": lost}), tmp_path / "cache")
