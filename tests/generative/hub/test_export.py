"""Exports have the checkpoint's numbers, whoever wrote it; a folder is there complete or not at all."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from generative.data.tokenizers import ByteTokenizer, load_tokenizer
from generative.errors import CheckpointError, ConfigError, ResourceError
from generative.hub import files
from generative.hub.card import Card
from generative.hub.export import Export, choose_average, choose_network
from generative.hub.folder import check_target
from generative.hub.tensors import whole_tensors
from generative.training.checkpoint import Checkpoint, CheckpointStore, Entry, shares
from generative.training.networks import checkpoint_weights, weight_names

CARD = Card("tiny", "A model.", "generative", "text-generation", [], {"steps": "3"}, "", [], "", ("sh", "true"))
CONFIG = {"model_type": "generative", "network": "net"}


def tensors() -> dict[str, Tensor]:
    """Weights, their average, a counter and the optimizer's state of a network, under a checkpoint's names."""
    generator = torch.Generator().manual_seed(3)
    weights = {"a.weight": (37, 11), "b.bias": (5,), "c.weight": (8, 4), "scale": ()}
    found = {
        f"{prefix}/{name}": torch.randn(shape, generator=generator)
        for prefix in ("net/net/param", "ema/net/0.9", "optim/net/exp_avg", "net/critic/param")
        for name, shape in weights.items()
    }
    return found | {"net/net/buffer/calls": torch.tensor(70000), "net/net/buffer/flags": torch.tensor([True, False])}


def rows(whole: dict[str, Tensor], rank: int, world: int) -> dict[str, Entry]:
    """Whole rows of everything, as fully_shard hands them out; scalars go to rank 0."""
    taken = {}
    for name, tensor in whole.items():
        each = -(-len(tensor) // world) if tensor.ndim else 1
        part = tensor[rank * each : (rank + 1) * each] if tensor.ndim else tensor.view(1)[rank:]
        if part.numel():
            size = tensor[0].numel() if tensor.ndim else 1
            taken[name] = Entry(part, rank * each * size, tuple(tensor.shape))
    return taken


def intervals(whole: dict[str, Tensor], rank: int, world: int) -> dict[str, Entry]:
    """An interval of each flattened tensor, as ZeRO-3 hands them out: cuts fall inside rows."""
    taken = {}
    for name, tensor in whole.items():
        each = -(-tensor.numel() // world)
        part = tensor.reshape(-1)[rank * each : (rank + 1) * each]
        if part.numel():
            taken[name] = Entry(part, rank * each, tuple(tensor.shape))
    return taken


def save(folder: Path, cut: Callable[..., dict[str, Entry]], world: int) -> Checkpoint:
    stores = [CheckpointStore(folder, rank, world, "attempt") for rank in range(world)]
    for rank, store in enumerate(stores):
        store.save(3, cut(tensors(), rank, world), {})
    for store in stores:
        store.wait()
    return stores[0].open(3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return save(tmp_path / "checkpoints", intervals, 3)


def make(checkpoint: Checkpoint, average: float | None = None, dtype: torch.dtype = torch.float32) -> Export:
    return Export(checkpoint, whole_tensors(checkpoint, weight_names(checkpoint, "net", average), dtype), CONFIG, CARD)


def load(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize(("cut", "world"), [(shares, 1), (shares, 4), (rows, 2), (rows, 5), (intervals, 3)])
@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("most", [1 << 30, 600, 1])
def test_any_checkpoint_gives_its_weights_whole_or_in_files(
    tmp_path: Path, cut: Callable[..., dict[str, Entry]], world: int, average: float | None, most: int
) -> None:
    checkpoint = save(tmp_path / "checkpoints", cut, world)
    names = [path.name for path in make(checkpoint, average).write(tmp_path / "out", most)]
    expected = checkpoint_weights(checkpoint, "net", average)
    found = load(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert ("model.safetensors" in names) == (most == 1 << 30)
    assert ("model.safetensors.index.json" in names) == (most != 1 << 30)


def test_files_are_named_and_indexed_as_transformers_does(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make(checkpoint).write(tmp_path / "out", 600)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    expected = checkpoint_weights(checkpoint, "net")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    assert index["weight_map"].keys() == expected.keys()
    count = len(set(index["weight_map"].values()))
    assert sorted(set(index["weight_map"].values())) == [
        f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)
    ]
    for file in set(index["weight_map"].values()):
        with safe_open(tmp_path / "out" / file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            sizes = [expected[name].nbytes for name in opened.keys()]  # noqa: SIM118
            assert {name for name, place in index["weight_map"].items() if place == file} == set(opened.keys())
        assert sum(sizes) <= 600 or len(sizes) == 1


def test_bf16_rounds_weights_and_leaves_counters(checkpoint: Checkpoint, tmp_path: Path) -> None:
    make(checkpoint, dtype=torch.bfloat16).write(tmp_path / "out", 1 << 30)
    found = load(tmp_path / "out")
    for name, tensor in checkpoint_weights(checkpoint, "net").items():
        assert torch.equal(found[name], tensor.bfloat16() if tensor.is_floating_point() else tensor)
    assert found["calls"] == 70000


def test_no_more_than_a_piece_is_in_memory(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(checkpoint).write(tmp_path / "whole", 1 << 30)
    monkeypatch.setattr(files, "PIECE", 7)
    read, sizes, told = checkpoint.read, [], []

    def recorded(name: str, start: int = 0, numel: int | None = None) -> Tensor:
        part = read(name, start, numel)
        sizes.append(part.numel())
        return part

    monkeypatch.setattr(checkpoint, "read", recorded)
    make(checkpoint).write(tmp_path / "pieces", 1 << 30, on_bytes=told.append)
    assert max(sizes) == 7
    whole, pieces = (tmp_path / name / "model.safetensors" for name in ("whole", "pieces"))
    assert pieces.read_bytes() == whole.read_bytes()
    assert sum(told) == sum(tensor.nbytes for tensor in checkpoint_weights(checkpoint, "net").values())


def test_the_tokenizer_comes_along(checkpoint: Checkpoint, tmp_path: Path) -> None:
    replace(make(checkpoint), tokenizer=ByteTokenizer()).write(tmp_path / "out", 1 << 30)
    assert isinstance(load_tokenizer(tmp_path / "out"), ByteTokenizer)


@pytest.mark.parametrize("error", [CheckpointError("damaged"), OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True])
def test_what_fails_in_the_middle_leaves_what_was_there(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bool
) -> None:
    if before:
        make(checkpoint).write(tmp_path / "out", 1 << 30)
    there = {path: path.read_bytes() for path in tmp_path.glob("out/*")}
    read, calls = checkpoint.read, []

    def failing(*words: object) -> Tensor:
        calls.append(words)
        if len(calls) == 4:
            raise error
        return read(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "read", failing)
    expected = ResourceError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        make(checkpoint).write(tmp_path / "out", 600, force=True)
    assert {path: path.read_bytes() for path in tmp_path.glob("out*/*")} == there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", *(["out"] if before else [])]


def test_what_a_killed_export_left_is_taken_away_or_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    partial, old = tmp_path / "out.partial", tmp_path / "out.replaced"
    (partial / "folder").mkdir(parents=True)
    (partial / "model.safetensors").write_text("torn")
    make(checkpoint).write(tmp_path / "out", 600)
    assert not partial.exists()
    assert not (tmp_path / "out" / "folder").exists()
    # Killed between the two renames of --force: the old export is what there is.
    (tmp_path / "out").rename(old)
    with pytest.raises(ConfigError, match="there already"):
        make(checkpoint).write(tmp_path / "out", 600)
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert not old.exists()
    assert not partial.exists()


def test_a_second_export_to_one_folder_is_refused_and_spoils_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_text("being written")
    with (partial / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="another process is exporting"):
            make(checkpoint).write(tmp_path / "out", 600)
    assert (partial / "model.safetensors").read_text() == "being written"
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_found_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(ResourceError, match=r"1\.0 MB free"):
        make(checkpoint).write(tmp_path / "new" / "out", 600)
    assert not (tmp_path / "new").exists()


def test_only_an_earlier_export_is_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    mine, file, empty = tmp_path / "mine", tmp_path / "file", tmp_path / "empty"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    file.write_text("mine")
    empty.mkdir()
    check_target(empty, force=False)
    check_target(tmp_path / "new", force=False)
    for target, force, words in [(mine, False, "there already"), (mine, True, "other things"), (file, True, "a file")]:
        with pytest.raises(ConfigError, match=words):
            check_target(target, force)
    make(checkpoint).write(empty, 600)
    make(checkpoint, average=0.9).write(empty, 1 << 30, force=True)
    assert torch.equal(load(empty)["scale"], checkpoint.tensor("ema/net/0.9/scale"))
    (empty / ".git").mkdir()
    with pytest.raises(ConfigError, match="other things"):
        check_target(empty, force=True)


def test_sizes_as_people_write_them() -> None:
    sizes = {"5GB": 5 * 10**9, "500mb": 5 * 10**8, "1.5 KB": 1500, "2GiB": 2 << 30, "77": 77}
    assert {text: files.parse_size(text) for text in sizes} == sizes
    for text in ("", "GB", "5 gigs", "-1GB", "0", "0.1"):
        with pytest.raises(ConfigError, match="--max-shard"):
            files.parse_size(text)


def test_networks_and_averages_are_chosen_by_name() -> None:
    assert choose_network(["net"], None) == "net"
    assert choose_network(["student", "critic"], "critic") == "critic"
    for wanted in (None, "teacher"):
        with pytest.raises(ConfigError) as caught:
            choose_network(["student", "critic"], wanted)
        assert caught.value.expected == "one of student, critic"
    assert choose_average([0.99, 0.9999], "trained") is None
    assert choose_average([0.99, 0.9999], "ema") == 0.99
    assert choose_average([0.99, 0.9999], "ema=0.9999") == 0.9999
    for kept, wanted in (([], "ema"), ([0.99], "ema=0.9"), ([0.99], "average")):
        with pytest.raises(ConfigError, match=f"--weights {wanted}"):
            choose_average(kept, wanted)
