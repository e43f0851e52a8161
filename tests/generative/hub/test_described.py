"""Pickles with source in them: what they describe is read, nothing of it is run, and what else they name is refused."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import pickletools
from pathlib import Path

import pytest
import torch

from generative.errors import CheckpointError
from generative.hub.described import read_described
from generative.hub.published import choose_reader
from generative.methods.edm.convert import from_released
from generative.nets.edm_precond import EdmNetwork
from launch.cli import main
from tests.support.edm import GOLDEN

TINY = GOLDEN / "edm_tiny.pkl"


def call(module: str, name: str, arguments: tuple) -> bytes:
    """A pickle that calls a function which it names."""
    body = pickle.dumps(arguments, protocol=2)[2:-1]
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + body + b"R."


def test_the_golden_file():
    expected = json.loads((GOLDEN / "edm_tiny_expected.json").read_text())
    network = read_described(TINY)["ema"]
    assert network.kind == "EDMPrecond"
    assert network.fields["_init_kwargs"] == expected["init_kwargs"]
    for name, value in expected["init_defaults_to_check"].items():
        assert network.fields[name] == (float(value) if isinstance(value, str) else value)
    tensors = dict(network.named_tensors())
    assert tensors.keys() == expected["tensors"].keys()
    for name, told in expected["tensors"].items():
        found = tensors[name]
        assert list(found.shape) == told["shape"]
        assert str(found.dtype) == told["dtype"]
        assert found.double().sum().item() == pytest.approx(told["sum"], rel=1e-9, abs=1e-6)
        assert found.double().abs().sum().item() == pytest.approx(told["abs_sum"], rel=1e-6)
        assert found.flatten()[0].item() == pytest.approx(told["first"], rel=1e-9)


def test_import_gives_a_folder_that_networks_start_from(tmp_path):
    out = tmp_path / "out"
    assert main(["import", str(TINY), "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["method"]["name"] == "edm"
    assert config["method"]["network"]["multipliers"] == [1]
    assert config["method"]["augmentation"] == {"probability": 0.0, "labels": True}
    told = {"sample_shape": [3, 8, 8], "classes": 4}
    assert config["facts"] == dict.fromkeys(("vocab_size", "sequence_length", "text_shape")) | told
    from safetensors.torch import load_file

    from generative.method import DataFacts
    from generative.methods.edm.config import EdmConfig
    from generative.methods.edm.network import build_network

    net = build_network(EdmConfig.model_validate(config["method"]), DataFacts(**config["facts"]))
    net.load_state_dict(load_file(out / "model.safetensors"))
    assert isinstance(net, EdmNetwork)


def test_the_name_of_a_file_tells_its_method():
    assert choose_reader("edm-cifar10-32x32-cond-vp.pkl", None) is choose_reader("any", "edm")


@pytest.mark.parametrize("inside", [False, True])
def test_a_hostile_file_is_refused_and_not_run(tmp_path, inside):
    made = tmp_path / "made"
    trap = call("os", "mkdir", (str(made),))
    if inside:
        trap = b"\x80\x02" + TINY.read_bytes()[2:-1] + trap[2:]  # after a good object
    (tmp_path / "trap.pkl").write_bytes(trap)
    with pytest.raises(CheckpointError) as error:
        read_described(tmp_path / "trap.pkl")
    assert "os.mkdir" in error.value.problem
    assert main(["import", str(tmp_path / "trap.pkl"), "--out", str(tmp_path / "out")]) != 0
    assert not made.exists()
    assert not (tmp_path / "out").exists()


def test_source_in_a_file_is_not_run(tmp_path):
    """The class's source would make a folder where it is compiled."""
    made = tmp_path / "made"
    meta = {
        "type": "class",
        "version": 6,
        "module_src": f"import os\nos.mkdir({str(made)!r})\nclass EDMPrecond: pass",
        "class_name": "EDMPrecond",
        "state": {"_init_kwargs": {}, "_parameters": {}, "_buffers": {}, "_modules": {}},
    }
    data = call("torch_utils.persistence", "_reconstruct_persistent_obj", (meta,))
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(CheckpointError, match="Described"):
        read_described(tmp_path / "a.pkl")
    assert not made.exists()


class Trap:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_trap_among_the_numbers_is_refused(tmp_path):
    """Storages are pickles within the pickle."""
    inner = io.BytesIO()
    torch.save(Trap(tmp_path / "made"), inner, _use_new_zipfile_serialization=False)
    (tmp_path / "a.pkl").write_bytes(call("torch.storage", "_load_from_bytes", (inner.getvalue(),)))
    with pytest.raises(CheckpointError):
        read_described(tmp_path / "a.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "call_of",
    [
        ("builtins", "eval", ("1",)),
        ("builtins", "getattr", ({}, "keys")),
        ("torch.storage", "_load_from_bytes", (b"no",)),
        ("torch._utils", "_rebuild_tensor_v2", (1, 0, (2,), (1,), False, None)),
        ("torch._utils", "_rebuild_parameter", (1, True, None)),
        ("_codecs", "encode", ("a", "rot13")),
        ("numpy.core.multiarray", "scalar", (1, b"")),
    ],
    ids=str,
)
def test_other_calls_are_refused(tmp_path, call_of):
    (tmp_path / "a.pkl").write_bytes(call(*call_of))
    with pytest.raises(CheckpointError):
        read_described(tmp_path / "a.pkl")


def rebuilt(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"ema": a tensor} on a storage of four numbers."""
    stored = io.BytesIO()
    torch.save(torch.arange(4.0)._typed_storage(), stored, _use_new_zipfile_serialization=False)
    body = pickle.dumps((stored.getvalue(),), protocol=2)[2:-1]
    numbers = b"ctorch.storage\n_load_from_bytes\n" + body + b"R"
    places = b"".join(pickle.dumps(value, protocol=2)[2:-1] for value in (offset, size, stride, False, None))
    return b"\x80\x02}X\x03\x00\x00\x00emactorch._utils\n_rebuild_tensor_v2\n(" + numbers + places + b"tRs."


def test_a_tensor_holds_nothing_but_what_is_in_the_file(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(rebuilt(1, (3,), (1,)))
    assert read_described(path)["ema"].tolist() == [1, 2, 3]
    for offset, size, stride in ((0, (1000,), (1,)), (2, (3,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,))):
        path.write_bytes(rebuilt(offset, size, stride))
        with pytest.raises(CheckpointError):
            read_described(path)


def test_a_length_beyond_all_memory(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_described(tmp_path / "a.pkl")


def test_what_a_pickle_sets_is_gone_with_it(tmp_path):
    """BUILD may set attributes of what is named; each file has its own."""
    poisoned = b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}X\x04\x00\x00\x00seenK\x01s\x86b."
    (tmp_path / "a.pkl").write_bytes(poisoned)
    pickletools.dis(poisoned, out=io.StringIO())
    with pytest.raises(CheckpointError):
        read_described(tmp_path / "a.pkl")
    assert "ema" in read_described(TINY)


def test_a_cut_file_is_told(tmp_path):
    (tmp_path / "a.pkl").write_bytes(TINY.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_described(tmp_path / "a.pkl")
    with pytest.raises(CheckpointError, match="no such file"):
        read_described(tmp_path / "nothing.pkl")


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("VPPrecond", {}, "VPPrecond"),
        ("EDMPrecond", {"model_type": "Other"}, "Other"),
        ("EDMPrecond", {"heads": 3}, "heads"),
        ("EDMPrecond", {"augment_dim": 6}, "6 labels"),
        ("EDMPrecond", {"num_blocks": -1}, "blocks"),
        ("EDMPrecond", {"img_channels": None}, "size of images"),
        ("EDMPrecond", {"img_channels": math.inf}, "size of images"),
        ("EDMPrecond", {"img_resolution": -8}, "size of images"),
        ("EDMPrecond", {3: 1, "heads": 1}, "an argument '3'"),
        ("EDMPrecond", {"model_type": ["SongUNet"]}, "a U-Net of the class"),
        ("EDMPrecond", {"model_type": {}}, "'model_type'.* that is dict"),
        ("EDMPrecond", {"augment_dim": torch.zeros(3)}, "'augment_dim'.* that is Tensor"),
        ("EDMPrecond", {"attn_resolutions": [[16]]}, "'attn_resolutions'.* that is list"),
    ],
)
def test_other_networks_are_refused(kind, changes, told):
    arguments = json.loads((GOLDEN / "edm_tiny_expected.json").read_text())["init_kwargs"] | changes
    with pytest.raises(CheckpointError, match=told):
        from_released(kind, arguments, {})


def test_defaults_of_the_published_classes():
    sizes = {"img_resolution": 64, "img_channels": 3, "label_dim": 1000}
    network = from_released("EDMPrecond", sizes | {"use_fp16": True}, {}).config.network
    assert (network.name, network.width, network.multipliers, network.blocks) == ("dhariwal", 192, (1, 2, 3, 4), 3)
    network = from_released("EDMPrecond", sizes | {"model_type": "SongUNet"}, {}).config.network
    assert (network.name, network.width, network.multipliers, network.dropout) == ("song", 128, (1, 2, 2, 2), 0.1)
