"""The restricted reader of published files: tensors come out, nothing is run, and what is wrong is told."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from generative.errors import CheckpointError
from generative.hub.legacy import read_state_dict, write_state_dict

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
