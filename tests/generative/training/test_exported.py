"""A network starts from an exported folder as from the checkpoint that it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from generative.errors import CheckpointError
from generative.hub.card import Card
from generative.hub.export import Export
from generative.hub.tensors import whole_tensors
from generative.method import NetworkSpec
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.networks import build_engines, check_networks, initialize, weight_names
from generative.training.state import entries
from tests.support.toys import Net, Regression

CARD = Card("tiny", "A model.", "generative", "text-generation", [], {}, "", [], "", ("sh", "true"))


class Started(Regression):
    """The regression, from a source."""

    source = ""

    def networks(self):
        return {"net": NetworkSpec(Net, init_from=self.source)}


def started(source: object) -> Started:
    method = Started()
    object.__setattr__(method, "source", str(source))
    return method


@pytest.fixture(params=[1 << 30, 40], ids=["one file", "several files"])
def exported(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, nn.Module]:
    engines = build_engines(Regression(), TrainConfig(steps=3, seed=11), 3, Backend())[0]
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(7, entries(engines, {}, 0, 1), {}, asynchronous=False)
    checkpoint = store.open(7)
    tensors = whole_tensors(checkpoint, weight_names(checkpoint, "net"), torch.float32)
    Export(checkpoint, tensors, {"model_type": "generative", "network": "net"}, CARD).write(
        tmp_path / "out", request.param
    )
    return tmp_path / "out", engines["net"].module


@pytest.mark.parametrize("suffix", ["", "#net"])
def test_a_network_starts_from_an_export(exported: tuple[Path, nn.Module], suffix: str) -> None:
    folder, module = exported
    config = TrainConfig(steps=3, seed=12)
    engines, sources = build_engines(started(f"{folder}{suffix}"), config, 3, Backend())
    for name, tensor in module.state_dict().items():
        assert torch.equal(engines["net"].module.state_dict()[name], tensor)
    assert sources == {"net": f"{folder}#net"}
    fresh = build_engines(Regression(), config, 3, Backend())[0]["net"].module
    assert not torch.equal(fresh.first.weight, module.first.weight)


def refusal(source: object, module: nn.Module | None = None) -> CheckpointError:
    """The error that the check before a run gives; the start itself refuses too."""
    module = module or Net()
    with pytest.raises(CheckpointError):
        initialize(module, str(source), "net", {})
    with pytest.raises(CheckpointError) as early:
        check_networks(started(source), TrainConfig(steps=3), {"net": module})
    assert early.value.remedy
    return early.value


def test_another_size_or_network_is_refused(exported: tuple[Path, nn.Module]) -> None:
    folder, _ = exported
    assert "first.bias is [5] instead of [9]" in refusal(folder, Net(width=9)).problem
    error = refusal(f"{folder}#critic")
    assert "no network 'critic'" in error.problem
    assert error.expected == "one of net"


def test_the_layout_of_another_program_is_refused_with_the_remedy(exported: tuple[Path, nn.Module]) -> None:
    folder, _ = exported
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    error = refusal(folder)
    assert "type 'llama'" in error.problem
    assert "--layout generative" in error.remedy


def test_damage_is_told_by_file(exported: tuple[Path, nn.Module]) -> None:
    folder, _ = exported
    first = sorted(folder.glob("*.safetensors"))[0]
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])
    assert first.name in refusal(folder).problem
    first.unlink()
    assert first.name in refusal(folder).problem
    first.write_bytes(whole)
    (folder / "config.json").write_text("{")
    assert "config.json" in refusal(folder).problem


def test_an_index_that_leads_elsewhere_is_refused(exported: tuple[Path, nn.Module]) -> None:
    folder, _ = exported
    index = folder / "model.safetensors.index.json"
    for places in ({"first.weight": "../secret.safetensors"}, {}, []):
        index.write_text(json.dumps({"weight_map": places}))
        assert "index.json" in refusal(folder).problem
