"""The format: what any number of ranks write, any number of ranks read; damage never goes unseen."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from generative.errors import CheckpointError
from generative.training.checkpoint import Checkpoint, CheckpointStore, Entry, newest_in, open_checkpoint, shares
from generative.training.checkpoint.format import CODES, prove_cover

SHAPES = [(), (1,), (0,), (3, 0), (7,), (2, 5), (37, 11), (64, 64)]


def tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> Tensor:
    """Random bits, so that nan, -0 and denormal numbers occur; a bool only knows two."""
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def save(folder: Path, step: int, parts: list[dict[str, Entry]]) -> Checkpoint:
    """One checkpoint, each rank with a store of its own."""
    stores = [CheckpointStore(folder, rank, len(parts), f"attempt-{step}") for rank in range(len(parts))]
    for store, entries in zip(stores, parts, strict=True):
        store.save(step, entries, {"loss": step / 100})
    for store in stores:
        store.wait()
    return stores[0].open(step)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two checkpoints of two ranks."""
    for step in (100, 200):
        tensors = {"weight": torch.full((1000,), float(step)), "count": torch.tensor(step)}
        save(tmp_path, step, [shares(tensors, rank, 2) for rank in range(2)])
    return tmp_path


@given(
    kinds=st.dictionaries(
        st.text(max_size=20).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(list(CODES)), st.sampled_from(SHAPES)),
        min_size=1,
        max_size=8,
    ),
    writers=st.integers(1, 3),
    readers=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_every_bit_comes_back_at_any_number_of_ranks(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    writers: int,
    readers: int,
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    tensors = {name: tensor(*kind, seed) for seed, (name, kind) in enumerate(kinds.items())}
    checkpoint = save(folder, 1, [shares(tensors, rank, writers) for rank in range(writers)])
    assert checkpoint.damage() == []
    assert checkpoint.names() == sorted(tensors)
    for name, original in tensors.items():
        assert checkpoint.shape(name) == original.shape
        assert checkpoint.dtype(name) == original.dtype
        assert bits(checkpoint.tensor(name)) == bits(original)
        flat, n = original.reshape(-1), original.numel()
        for rank in range(readers):
            start, end = n * rank // readers, n * (rank + 1) // readers
            assert bits(checkpoint.read(name, start, end - start)) == bits(flat[start:end])
    shutil.rmtree(folder)


@given(
    sizes=st.lists(st.integers(0, 500), max_size=30),
    dtypes=st.lists(
        st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.bool]), min_size=30, max_size=30
    ),
    world=st.integers(1, 9),
)
def test_shares_cover_everything_once_in_equal_parts_with_few_cuts(
    sizes: list[int], dtypes: list[torch.dtype], world: int
) -> None:
    tensors = {str(i): torch.zeros(n, dtype=dtypes[i]) for i, n in enumerate(sizes)}
    parts = [shares(tensors, rank, world) for rank in range(world)]
    for name, whole in tensors.items():
        pieces = [("", part[name].start, part[name].tensor.numel()) for part in parts if name in part]
        assert pieces
        prove_cover(name, whole.numel(), pieces)
    held = [sum(entry.tensor.nbytes for entry in part.values()) for part in parts]
    assert max(held) - min(held) <= 16
    assert sum(map(len, parts)) <= len(tensors) + world - 1


def test_intervals_of_any_layout_fit_together(tmp_path: Path) -> None:
    whole = torch.arange(40.0).reshape(8, 5)
    rows = [Entry(whole[:6], 0, (8, 5)), Entry(whole[6:], 30, (8, 5))]
    checkpoint = save(tmp_path, 1, [{"w": rows[1]}, {"w": rows[0], "only here": Entry(whole.t())}])
    assert torch.equal(checkpoint.tensor("w"), whole)
    assert torch.equal(checkpoint.tensor("only here"), whole.t())
    assert torch.equal(checkpoint.read("w", 28, 4), torch.arange(28.0, 32.0))


@pytest.mark.parametrize(
    "second", [Entry(torch.ones(4), 5, (10,)), Entry(torch.ones(7), 3, (10,))], ids=["gap", "overlap"]
)
def test_parts_that_leave_a_gap_or_overlap_never_become_a_checkpoint(tmp_path: Path, second: Entry) -> None:
    with pytest.raises(CheckpointError, match=r"'w' do not fit together: (a gap|an overlap|the ranks hold)"):
        save(tmp_path, 1, [{"w": Entry(torch.ones(4), 0, (10,))}, {"w": second}])
    assert list(tmp_path.iterdir()) == []


def test_an_interval_outside_of_its_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="elements 8 to 12"):
        Entry(torch.ones(4), 8, (10,))


def test_files_are_plain_safetensors_and_json(written: Path) -> None:
    folder = written / "step_000200"
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.json",
        "rank0000.safetensors",
        "rank0001.safetensors",
    ]
    index = json.loads((folder / "index.json").read_text())
    assert index["step"] == 200
    assert index["meta"] == {"loss": 2.0}
    for name, facts in index["files"].items():
        content = (folder / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    pieces = index["tensors"]["weight"]["pieces"]
    joined = torch.cat([load_file(folder / file)["weight"] for file, _, _ in pieces])
    assert torch.equal(joined, torch.full((1000,), 200.0))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "shorter": ("rank0001.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
    "longer": ("rank0001.safetensors", lambda path: path.write_bytes(path.read_bytes() + b"0"), "bytes instead of"),
    "changed": ("rank0000.safetensors", flip_a_bit, "sha256"),
    "missing": ("rank0000.safetensors", Path.unlink, "missing"),
    "no index": ("index.json", Path.unlink, "missing"),
    "torn index": ("index.json", lambda path: path.write_bytes(path.read_bytes()[:99]), "not valid JSON"),
    "empty index": ("index.json", lambda path: path.write_bytes(b""), "not valid JSON"),
    "other json": ("index.json", lambda path: path.write_bytes(b"[1]"), "not the index"),
    "changed meta": (
        "index.json",
        lambda path: path.write_text(path.read_text().replace('"loss": 2.0', '"loss": 3.0')),
        "checksum",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_with_a_message_that_names_the_file(written: Path, kind: str) -> None:
    file, spoil, reason = DAMAGE[kind]
    spoil(written / "step_000200" / file)
    heard: list[tuple[str, int, str]] = []
    found = newest_in(written, on_event=lambda *event: heard.append(event))
    assert found is not None
    assert found.step == 100
    assert torch.equal(found.tensor("weight"), torch.full((1000,), 100.0))
    [(event, step, message)] = heard
    assert (event, step) == ("warning", 200)
    assert file in message
    assert reason in message
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(written / "step_000200")


def test_a_newer_format_is_an_error_and_not_a_reason_to_go_on_from_older_work(written: Path) -> None:
    index = written / "step_000200" / "index.json"
    index.write_text(index.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(CheckpointError, match="format version 2"):
        newest_in(written)


def test_open_checkpoint_takes_a_run_a_checkpoints_or_a_step_folder(written: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(written, run / "checkpoints", ignore=shutil.ignore_patterns("run"))
    assert open_checkpoint(run).step == 200
    assert open_checkpoint(str(run / "checkpoints")).step == 200
    assert open_checkpoint(run / "checkpoints" / "step_000100").step == 100


def test_open_checkpoint_says_what_it_found_instead(written: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        open_checkpoint(written / "nowhere")
    (written / "published.pkl").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"is a file[\s\S]*generative import"):
        open_checkpoint(written / "published.pkl")
    (written / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no step_NNNNNN folder"):
        open_checkpoint(written / "empty")
    unfinished = shutil.copytree(written / "step_000100", written / "step_000300.tmp-abc-1")
    with pytest.raises(CheckpointError, match="unfinished"):
        open_checkpoint(unfinished)
    assert open_checkpoint(written).step == 200
    for step in (100, 200):
        flip_a_bit(written / f"step_{step:06d}" / "rank0000.safetensors")
    with pytest.raises(CheckpointError, match=r"step_000200 is damaged.*step_000100 is damaged"):
        open_checkpoint(written)


def test_wrong_names_and_intervals_are_told(written: Path) -> None:
    checkpoint = open_checkpoint(written)
    with pytest.raises(CheckpointError, match="Did you mean weight"):
        checkpoint.tensor("wieght")
    with pytest.raises(CheckpointError, match="elements 990 to 1001"):
        checkpoint.read("weight", 990, 11)


def test_nothing_in_an_index_leads_out_of_the_folder(written: Path) -> None:
    from generative.training.checkpoint.format import _checksum

    path = written / "step_000200" / "index.json"
    body = json.loads(path.read_text())
    del body["checksum"]
    body["files"]["../step_000100/rank0000.safetensors"] = body["files"].pop("rank0000.safetensors")
    path.write_text(json.dumps({**body, "checksum": _checksum(body)}))
    with pytest.raises(CheckpointError, match="outside of its folder"):
        open_checkpoint(path.parent)
