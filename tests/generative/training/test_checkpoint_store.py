"""Saving in the background: errors surface, nothing half-written stays, rotation keeps what it promises."""

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.errors import CheckpointError
from generative.training.checkpoint import CheckpointStore, Entry, open_checkpoint, shares, surplus_steps
from generative.training.checkpoint import store as checkpoint_store
from generative.training.checkpoint import writer as writing


def entries(value: float, n: int = 1000) -> dict[str, Entry]:
    return {"w": Entry(torch.full((n,), value))}


def folders(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir() if child.is_dir())


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds the writer thread back until it is set."""
    event, write = threading.Event(), writing.write_part

    def held(*args: object) -> None:
        assert event.wait(30)
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(writing, "write_part", held)
    yield event
    event.set()


def test_a_save_returns_before_it_is_written_and_keeps_the_values_of_its_moment(
    tmp_path: Path, gate: threading.Event
) -> None:
    store = CheckpointStore(tmp_path)
    weight = torch.zeros(1000)
    store.save(1, {"w": Entry(weight)}, {"lr": 0.5})
    assert store.busy
    assert store.complete_steps() == []
    weight.fill_(7.0)
    gate.set()
    store.wait()
    assert store.complete_steps() == [1]
    assert torch.equal(store.open(1).tensor("w"), torch.zeros(1000))
    assert store.open(1).meta == {"lr": 0.5}


def test_the_next_save_waits_for_the_one_under_way_and_the_waiting_is_counted(
    tmp_path: Path, gate: threading.Event
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, entries(1.0), {})
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    store.save(2, entries(2.0), {})
    assert 1 in store.complete_steps()
    assert store.blocked_seconds > 0.1
    store.wait()
    assert [float(store.open(step).tensor("w")[0]) for step in (1, 2)] == [1.0, 2.0]


def test_host_memory_is_used_again_and_grows_where_it_must(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=9)
    sizes = [1000, 1000, 10, 5000, 1000]
    pointers = []
    for step, n in enumerate(sizes):
        store.save(step, {**entries(step, n), "flag": Entry(torch.tensor(step % 2 == 0))}, {}, asynchronous=False)
        pointers.append(store._snapshot._block.data_ptr())
    assert pointers[0] == pointers[1] == pointers[2]
    assert pointers[3] == pointers[4]
    for step, n in enumerate(sizes):
        checkpoint = store.open(step)
        assert torch.equal(checkpoint.tensor("w"), torch.full((n,), float(step)))
        assert bool(checkpoint.tensor("flag")) == (step % 2 == 0)


def test_meta_that_is_not_json_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        CheckpointStore(tmp_path).save(1, entries(1.0), {"when": object()})
    assert folders(tmp_path) == []


def full_disk(descriptor: int, data: memoryview) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_surfaces_at_the_next_call_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, entries(1.0), {}, asynchronous=False)
    monkeypatch.setattr(os, "write", full_disk)
    store.save(2, entries(2.0), {})
    with pytest.raises(CheckpointError, match=r"no room for a checkpoint in .*MB needed.*MB free") as caught:
        store.wait()
    assert "free space" in caught.value.remedy
    assert folders(tmp_path) == ["step_000001"]
    monkeypatch.undo()
    store.poll()
    store.save(2, entries(2.0), {}, asynchronous=False)
    assert store.complete_steps() == [1, 2]


def test_too_little_space_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2 << 20})
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(os, "write", lambda *_: pytest.fail("it wrote"))
    with pytest.raises(CheckpointError, match=r"4\.0 MB needed, 2\.1 MB free"):
        CheckpointStore(tmp_path).save(1, entries(1.0, 1_000_000), {}, asynchronous=False)
    assert folders(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(mounted)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not allowed here")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.parametrize("checked", [True, False], ids=["found before", "found while writing"])
def test_a_really_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch, checked: bool) -> None:
    store = CheckpointStore(small_disk, keep_last=5)
    store.save(1, entries(1.0, 300_000), {}, asynchronous=False)
    if not checked:
        monkeypatch.setattr(writing, "_check_space", lambda *_: None)
    with pytest.raises(CheckpointError, match="no room"):
        store.save(2, entries(2.0, 600_000), {}, asynchronous=False)
    assert folders(small_disk) == ["step_000001"]
    store.save(3, entries(3.0, 100_000), {}, asynchronous=False)
    found = store.newest()
    assert found is not None
    assert found.step == 3


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint") as caught:
        CheckpointStore(tmp_path / "checkpoints").save(1, entries(1.0), {}, asynchronous=False)
    assert "in the way" in caught.value.remedy


def pair(folder: Path, timeout: float = 600.0) -> list[CheckpointStore]:
    return [CheckpointStore(folder, rank, 2, "start-1", timeout=timeout) for rank in range(2)]


def test_a_missing_rank_is_named_after_a_bounded_wait(tmp_path: Path) -> None:
    first, _ = pair(tmp_path, timeout=1)
    with pytest.raises(CheckpointError, match=r"no part from rank 1 after 1 s"):
        first.save(1, shares({"w": torch.ones(10)}, 0, 2), {}, asynchronous=False)
    assert folders(tmp_path) == []


def test_the_failure_of_one_rank_reaches_rank_0_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair(tmp_path)
    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(CheckpointError, match="no room"):
        second.save(1, shares({"w": torch.ones(10)}, 1, 2), {}, asynchronous=False)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="rank 1: no room"):
        first.save(1, shares({"w": torch.ones(10)}, 0, 2), {}, asynchronous=False)
    assert folders(tmp_path) == []


def test_close_gives_up_waiting_for_other_ranks(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    first.save(1, shares({"w": torch.ones(10)}, 0, 2), {})
    first.close()
    with pytest.raises(CheckpointError, match="the store was closed"):
        first.poll()


def test_a_disk_that_hangs_is_waited_for_within_a_limit(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_store, "CLOSING_SECONDS", 0.2)
    monkeypatch.setattr(checkpoint_store, "MOMENT", 0.0)
    store = CheckpointStore(tmp_path, timeout=0.1)
    store.save(1, {"w": Entry(torch.ones(3))}, {})
    for _ in range(2):  # the one under way is not forgotten
        with pytest.raises(CheckpointError, match=r"still being written after 0\.2 s"):
            store.wait()
    store.close()
    assert store.complete_steps() == []


def test_a_rank_that_is_ahead_loses_nothing(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    for step in (1, 2):
        second.save(step, shares({"w": torch.full((10,), float(step))}, 1, 2), {}, asynchronous=False)
    for step in (1, 2):
        first.save(step, shares({"w": torch.full((10,), float(step))}, 0, 2), {}, asynchronous=False)
    assert [open_checkpoint(tmp_path / f"step_00000{s}").tensor("w").unique().tolist() for s in (1, 2)] == [
        [1.0],
        [2.0],
    ]


def test_what_dead_attempts_left_is_removed_at_the_start_by_rank_0_only(tmp_path: Path) -> None:
    for name in ("step_000001.tmp-dead-1", "step_000001.tmp-removed-dead-3", "step_000002.tmp-start_1-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rank0001.safetensors").write_bytes(b"half")
    CheckpointStore(tmp_path, 1, 2, "start-1")
    assert len(folders(tmp_path)) == 3
    CheckpointStore(tmp_path, 0, 2, "start-1")
    assert folders(tmp_path) == ["step_000002.tmp-start_1-1"]


def test_a_resumed_run_that_comes_by_again_leaves_a_whole_checkpoint_and_replaces_a_damaged_one(tmp_path: Path) -> None:
    CheckpointStore(tmp_path).save(1, entries(1.0), {}, asynchronous=False)
    CheckpointStore(tmp_path).save(1, entries(2.0), {}, asynchronous=False)
    assert float(open_checkpoint(tmp_path).tensor("w")[0]) == 1.0
    (tmp_path / "step_000001" / "rank0000.safetensors").write_bytes(b"damage")
    heard: list[tuple[str, int, str]] = []
    again = CheckpointStore(tmp_path, on_event=lambda *event: heard.append(event))
    again.save(1, entries(2.0), {}, asynchronous=False)
    assert float(open_checkpoint(tmp_path).tensor("w")[0]) == 2.0
    assert folders(tmp_path) == ["step_000001"]
    assert [kind for kind, _, _ in heard] == ["warning", "checkpoint"]


STEPS = st.sets(st.integers(0, 400), max_size=30)


@given(STEPS, st.integers(1, 5), st.integers(0, 50), STEPS)
def test_rotation_keeps_newest_regular_and_protected_steps_and_nothing_else(
    steps: set[int], keep_last: int, keep_every: int, protected: set[int]
) -> None:
    surplus = surplus_steps(steps, keep_last, keep_every, protected)
    kept = steps - set(surplus)
    assert surplus == sorted(set(surplus))
    assert set(surplus) <= steps
    newest = sorted(steps, reverse=True)[:keep_last]
    regular = {step for step in steps if keep_every and step % keep_every == 0}
    assert kept == set(newest) | regular | (protected & steps)
    assert surplus_steps(kept, keep_last, keep_every, protected) == []


def test_rotation_on_disk_with_a_label_that_moves_and_outlives_a_restart(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_every=4)
    for step in range(1, 6):
        store.save(step, entries(step), {}, asynchronous=False)
        if step in (1, 2):
            store.protect(step)
    assert store.complete_steps() == [2, 4, 5]
    resumed = CheckpointStore(tmp_path, keep_last=2, keep_every=4)
    assert resumed.protected == {"best": 2}
    for step in (6, 7):
        resumed.save(step, entries(step), {}, asynchronous=False)
    assert resumed.complete_steps() == [2, 4, 6, 7]
    resumed.protect(7)
    resumed.save(9, entries(9), {}, asynchronous=False)
    assert resumed.complete_steps() == [4, 7, 9]
    assert folders(tmp_path) == ["step_000004", "step_000007", "step_000009"]
