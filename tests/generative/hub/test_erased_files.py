"""Edits by other programs as transforms; and which matrices count where only some are edited."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from generative.errors import CheckpointError
from generative.hub.erased_files import recovered
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.config import EraseConfig, StepConfig
from generative.methods.rece.erase import erase
from generative.methods.rece.layers import Layers
from generative.methods.rece.transform import Transform
from tests.generative.hub.erasing import erased
from tests.support.pipelines import golden_folder

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_folder(tmp_path_factory.mktemp("models") / "tiny")


def test_a_transform_from_its_matrix():
    p, q = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = Transform(p, q)
    found = Transform.of(made.matrix)
    assert found.rank == 2
    torch.testing.assert_close(found.matrix, made.matrix, rtol=0, atol=1e-12)
    assert Transform.of(torch.eye(3).double()).rank == 0


def test_an_edit_of_somebody_is_recovered(folder, tmp_path):
    outcome = erased(folder, tmp_path)
    save_file({f"unet.{name}": weight for name, weight in outcome.edited.items()}, tmp_path / "theirs.safetensors")
    model = open_model(str(folder))
    edits, missed = recovered(model, tmp_path / "theirs.safetensors", model.streams())
    assert missed["text"] < 1e-4
    assert edits.base_hash == outcome.edits.base_hash
    total = edits.total()["text"]
    for name, weight in outcome.weights.items():
        torch.testing.assert_close(total.on_weight(weight), outcome.edited[name], rtol=0, atol=1e-4)


def test_what_no_transform_expresses_is_refused(folder, tmp_path):
    model = open_model(str(folder))
    streams = model.streams()
    weights = model.read(streams[0].readers)
    generator = torch.Generator().manual_seed(0)
    tuned = {name: weight + torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    save_file(tuned, tmp_path / "tuned.safetensors")
    with pytest.raises(CheckpointError, match="no transform that all layers share"):
        recovered(model, tmp_path / "tuned.safetensors", streams)
    first = next(iter(tuned))
    save_file({first: tuned[first]}, tmp_path / "one.safetensors")
    with pytest.raises(CheckpointError, match="has no"):
        recovered(model, tmp_path / "one.safetensors", streams)


def test_layers_that_stay_count_in_the_derivation_of_the_technique_tensor(folder, tmp_path):
    step = StepConfig(technique="tensor", variant="whole", lamb=0.1, preserve_scale=0.1)
    config = EraseConfig(start=StepConfig(technique="tensor"), step=step, epochs=1)
    outcome = erased(folder, tmp_path, config=config, include="to_v")
    model = open_model(str(folder))
    every = model.streams()[0].readers
    values = frozenset(name for name in every if "to_v" in name)
    assert set(outcome.edited) == values
    parts = model.read(every)
    wanted = erase(Layers.of(parts, values), outcome.tasks["text"], config).state.current
    alone = erase(Layers.of({n: parts[n] for n in values}), outcome.tasks["text"], config).state.current
    for name in values:
        torch.testing.assert_close(outcome.edited[name], wanted[name].float(), rtol=0, atol=1e-6)
    assert any((wanted[name] - alone[name]).abs().max() > 1e-4 for name in values)
