"""The restricted reader of published files: tensors come out, nothing is run, and what is wrong is told."""

from __future__ import annotations

import collections
import importlib
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from generative.errors import CheckpointError
from generative.hub.legacy import Named, read_checkpoint, read_state_dict, write_state_dict

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3), "half": torch.ones(2).bfloat16()}


class Trap:
    """Unpickling this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_what_is_written_is_read_again(tmp_path):
    write_state_dict(tmp_path / "a.pth", STATE)
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "ordered.pt")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "a.safetensors", "old.pth"):
        torch.testing.assert_close(read_state_dict(tmp_path / name), STATE, rtol=0, atol=0)
    assert set(read_state_dict(tmp_path / "ordered.pt")) == {"weight", "bias"}


def test_a_written_view_does_not_take_its_whole_storage_along(tmp_path):
    write_state_dict(tmp_path / "a.pth", {"row": torch.zeros(1000, 100)[3]})
    assert (tmp_path / "a.pth").stat().st_size < 10_000


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_not_run(tmp_path, zipped):
    folder = tmp_path / "made"
    torch.save({"a": Trap(folder)}, tmp_path / "trap.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as error:
        read_state_dict(tmp_path / "trap.pth")
    assert "mkdir" in error.value.problem
    assert "safetensors" in error.value.remedy
    assert not folder.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(tmp_path / "made")))
    with pytest.raises(CheckpointError):
        read_state_dict(tmp_path / "trap.pth")
    assert not (tmp_path / "made").exists()


def test_a_whole_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 40, -30])
def test_truncated_files(tmp_path, name, kept):
    write_state_dict(tmp_path / "a.pth", STATE)
    save_file(STATE, tmp_path / "a.safetensors")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as error:
        read_state_dict(path)
    assert str(path) in error.value.problem
    assert error.value.remedy


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"epoch": 3, "state_dict": STATE}, "'epoch', 'state_dict'"),
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({}, "empty dict"),
        ({"a": torch.ones(3).to_sparse()}, "'a' is no plain tensor"),
    ],
)
def test_what_is_no_state_dict(tmp_path, value, told):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=told):
        read_state_dict(tmp_path / "a.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_state_dict(tmp_path / "none.pth")


# ---------------------------------------------------------------------- whole checkpoints


class Settings:
    """A class of the program that wrote a checkpoint."""

    def __init__(self, **values):
        self.values = values


class Entries(dict):
    """Another one."""


class Called:
    """Unpickling this would run Python code."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


def test_names_in_a_checkpoint_stand_for_nothing(tmp_path):
    write = {"state_dict": STATE, "epoch": 3, "hyper_parameters": {"cls": Trap, "lr": 0.1, "more": Settings(a=1)}}
    torch.save(write, tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    torch.testing.assert_close(found["state_dict"], STATE, rtol=0, atol=0)
    assert (found["epoch"], found["hyper_parameters"]["lr"]) == (3, 0.1)
    named, made = found["hyper_parameters"]["cls"], found["hyper_parameters"]["more"]
    assert issubclass(named, Named)
    assert named.name == f"{__name__}.Trap"
    assert isinstance(made, Named)
    assert made.name == f"{__name__}.Settings"
    assert not vars(made)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    """Neither what is called, nor a module that is named."""
    made = tmp_path / "made"
    code = f"open({str(made)!r}, 'w')"
    (tmp_path / "hostile_module.py").write_text(f"{code}\nclass Thing:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    hostile = importlib.import_module("hostile_module")
    things = {"thing": hostile.Thing(), "cls": hostile.Thing, "called": Called(code)}
    torch.save({"state_dict": STATE, "other": things}, tmp_path / "a.ckpt")
    monkeypatch.delitem(sys.modules, "hostile_module")
    made.unlink()
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert "hostile_module" not in sys.modules
    assert not made.exists()
    assert found["other"]["called"].name == "builtins.exec"
    # An ordinary reader does run it.
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert made.exists()


def test_functions_of_the_system_are_refused(tmp_path):
    torch.save({"state_dict": STATE, "other": Trap(tmp_path / "made")}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"would call \w+\.mkdir"):
        read_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "made").exists()


def test_reading_a_checkpoint_allows_nothing_afterwards(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"a": collections.UserDict(b=1)}, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["a"].name == "collections.UserDict"
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(CheckpointError, match=r"collections\.UserDict"):
        read_state_dict(tmp_path / "a.ckpt")


def test_a_torch_function_cannot_be_had_by_a_second_name(tmp_path):
    """What stands for a name is not looked up, though it is there."""
    torch.save({"a": torch.nn.Linear(2, 2)}, tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")["a"].name == "torch.nn.modules.linear.Linear"


@pytest.mark.parametrize("kept", [0, 1, 40, -30])
def test_truncated_checkpoints(tmp_path, kept):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": STATE, "cls": Trap}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(path) in error.value.problem


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_truncated_safetensors_where_a_checkpoint_should_be(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(path) in error.value.problem


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "none.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(tmp_path / "list.ckpt")
    torch.save({"other": Entries(a=1)}, tmp_path / "entries.ckpt")
    with pytest.raises(CheckpointError, match="Can only SETITEM"):
        read_checkpoint(tmp_path / "entries.ckpt")
    torch.save({"cls": Trap}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="Trap"):
        read_checkpoint(tmp_path / "old.ckpt")
    torch.save({"epoch": 3}, tmp_path / "plain.ckpt", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "plain.ckpt") == {"epoch": 3}


def test_views_in_what_is_written_are_alone_too(tmp_path):
    rows = torch.arange(100_000.0).view(1000, 100)
    write_state_dict(tmp_path / "a.ckpt", {"ema": {"shadow": [rows[3]], "decay": 0.9, "none": None}})
    assert (tmp_path / "a.ckpt").stat().st_size < 10_000
    found = read_checkpoint(tmp_path / "a.ckpt")["ema"]
    assert (found["decay"], found["none"]) == (0.9, None)
    torch.testing.assert_close(found["shadow"], [rows[3]])
