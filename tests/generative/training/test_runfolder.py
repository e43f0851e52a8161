"""Small files are old or new and never half; a log survives torn lines, full disks and several writers."""

import errno
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.errors import RunFolderError
from generative.training.runfolder import (
    append_line,
    atomic_write,
    check_writable,
    read_lines,
    replace_file,
    truncate_lines,
    write_json,
)

RECORDS = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), max_size=8)


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_atomic_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    for text in ("long " * 1000, "short ▁", ""):
        atomic_write(tmp_path / "status.json", text, durable=bool(text))
        assert (tmp_path / "status.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_write_that_fails_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    atomic_write(tmp_path / "status.json", "old")
    monkeypatch.setattr(os, operation, fail)
    with pytest.raises(RunFolderError, match=r"cannot write .*status\.json: No space left") as caught:
        atomic_write(tmp_path / "status.json", "new")
    assert "free space" in caught.value.remedy
    assert (tmp_path / "status.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@given(RECORDS, RECORDS, st.integers(0, 400))
def test_what_is_appended_after_a_torn_line_is_read_and_the_torn_line_is_gone(
    tmp_path_factory: pytest.TempPathFactory, before: list[dict[str, object]], after: list[dict[str, object]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    for record in before:
        append_line(path, record)
    whole = path.read_bytes() if before else b""
    torn = whole[:cut]
    path.write_bytes(torn)
    survivors = before[: torn.count(b"\n")]
    assert read_lines(path) == survivors
    for record in after:
        append_line(path, record)
    assert read_lines(path) == survivors + after
    if after:
        assert [json.loads(line) for line in path.read_text().splitlines()] == survivors + after


def test_a_torn_line_longer_than_the_search_window_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n' + "x" * 200_000)
    append_line(path, {"b": 2})
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n'


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    append_line(tmp_path / "m.jsonl", {"loss": {"a": math.nan, "b": [math.inf, 1.5]}})
    assert "NaN" not in (tmp_path / "m.jsonl").read_text()
    assert read_lines(tmp_path / "m.jsonl") == [{"loss": {"a": None, "b": [None, 1.5]}}]
    write_json(tmp_path / "figures.json", {"stderr": [math.nan, 1.0], "value": -math.inf})
    assert (tmp_path / "figures.json").read_text() == '{"stderr": [null, 1.0], "value": null}'


def test_a_disk_that_fills_in_the_middle_of_a_line_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "m.jsonl", os.write
    append_line(path, {"a": 1})
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(RunFolderError, match="No space left"):
        append_line(path, {"b": 2})
    assert path.read_text() == '{"a": 1}\n'


def test_no_file_is_an_empty_log(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl") == []
    assert truncate_lines(tmp_path / "none.jsonl", lambda _: False) == 0
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 50), st.booleans())
def test_truncation_keeps_exactly_what_it_is_told(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], limit: int, torn: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    path.write_text("".join(f'{{"step":{step}}}\n' for step in steps) + ('{"step":' if torn else ""))
    dropped = truncate_lines(path, lambda record: record["step"] <= limit)
    kept = [step for step in steps if step <= limit]
    assert dropped == len(steps) - len(kept)
    assert path.read_text() == "".join(f'{{"step":{step}}}\n' for step in kept)


APPENDER = """
import sys, pathlib
from generative.training.runfolder import append_line
for number in range(100):
    append_line(pathlib.Path(sys.argv[1]), {"who": sys.argv[2], "number": number, "text": "x" * (number * 37 % 5000)})
"""


def test_several_processes_append_while_the_log_is_rewritten_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, {"who": "drop"})
    writers = [subprocess.Popen([sys.executable, "-c", APPENDER, str(path), str(who)]) for who in range(3)]
    while any(writer.poll() is None for writer in writers):
        append_line(path, {"who": "drop"})
        truncate_lines(path, lambda record: record["who"] != "drop")
        time.sleep(0.005)
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    for who in range(3):
        assert [line["number"] for line in read_lines(path) if line["who"] == str(who)] == list(range(100))


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_of_the_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot use the folder") as caught:
        check_writable(tmp_path / place)
    assert "in the way" in caught.value.remedy


def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid() == 0:
        pytest.skip("permission bits do not bind root")
    with pytest.raises(RunFolderError, match="Permission denied"):
        check_writable(tmp_path / "locked" / "run")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(mounted)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_a_read_only_disk_is_told_to_root_too(read_only: Path) -> None:
    for folder in (read_only, read_only / "run"):
        with pytest.raises(RunFolderError, match="Read-only file system") as caught:
            check_writable(folder)
        assert "another run.dir" in caught.value.remedy


def test_a_folder_may_be_renamed_as_soon_as_its_file_is_there(tmp_path, monkeypatch):
    """Rank 0 publishes a checkpoint when it sees the last part, while the other rank is still flushing the folder."""
    folder, target = tmp_path / "unfinished", tmp_path / "complete"
    folder.mkdir()
    replace = os.replace

    def seen_at_once(source, destination):
        replace(source, destination)
        folder.rename(target)

    monkeypatch.setattr(os, "replace", seen_at_once)
    replace_file(folder / "part.json", b"{}")
    assert (target / "part.json").read_bytes() == b"{}"
