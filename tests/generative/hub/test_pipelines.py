"""Erasures in the pipelines of diffusers: embeddings as theirs, and one outcome by weights, LoRA, and at run time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("peft")
from generative.errors import CheckpointError
from generative.hub.erased_files import write_model
from generative.hub.erasing import Asked, Outcome, erase_model
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.config import PRESETS
from generative.methods.rece.formats import LORA, lora, lora_bytes
from generative.methods.rece.live import RuntimeErasure, erased, replace_weights
from generative.methods.rece.request import Request
from tests.support.pipelines import MADE, embeddings, image

TEXT = "a photo of a church"


@pytest.fixture(scope="module", params=list(MADE))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Outcome, Path]:
    pipe = MADE[request.param]()
    pipe.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp("models") / request.param
    pipe.save_pretrained(folder)
    asked = Asked(Request(["church"], ["art"], PRESETS["hard_object"].erase), cache=folder / "cache")
    return pipe, erase_model(open_model(str(folder)), asked), folder


def denoiser(pipe: Any) -> torch.nn.Module:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def with_weights(pipe: Any, found: Outcome, draw: Callable[[], torch.Tensor]) -> torch.Tensor:
    before = replace_weights(denoiser(pipe), found.edited)
    drawn = draw()
    replace_weights(denoiser(pipe), before)
    return drawn


def test_embeddings_are_the_pipelines(case: tuple[Any, Outcome, Path]) -> None:
    pipe, found, _ = case
    ours = found.model.encoders().encode([TEXT, "Van Gogh"])
    for number, text in enumerate([TEXT, "Van Gogh"]):
        theirs = embeddings(pipe, text)
        assert ours.keys() == theirs.keys()
        for name, wanted in theirs.items():
            rows = torch.cat([segment.rows for segment in ours[name][number].segments])
            torch.testing.assert_close(rows, wanted.double().reshape(rows.shape), rtol=1e-5, atol=1e-5)


def test_weights_run_time_and_lora_draw_the_same_image(case: tuple[Any, Outcome, Path], tmp_path: Path) -> None:
    pipe, found, _ = case
    assert found.edits is not None
    plain = image(pipe, TEXT)
    edited = with_weights(pipe, found, lambda: image(pipe, TEXT))
    assert float((edited - plain).abs().max()) > 1e-3
    with erased(denoiser(pipe), found.edits.total()) as hook:
        torch.testing.assert_close(image(pipe, TEXT), edited, rtol=0, atol=1e-4)
        hook.strength = 0.0
        assert torch.equal(image(pipe, TEXT), plain)
    assert torch.equal(image(pipe, TEXT), plain)
    made = lora(found.weights, found.streams, found.edits.total(), found.model.part)
    assert max(made.missed.values()) < 1e-9
    (tmp_path / LORA).write_bytes(lora_bytes(made))
    if hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(tmp_path)
        torch.testing.assert_close(image(pipe, TEXT), edited, rtol=0, atol=1e-4)
        pipe.unload_lora_weights()
    else:  # diffusers loads no LoRA for it: the product itself
        name = found.streams[0].readers[0]
        up, down = (made.tensors[f"transformer.{name.removesuffix('.weight')}.lora_{side}.weight"] for side in "BA")
        torch.testing.assert_close(found.weights[name] + up @ down, found.edited[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(image(pipe, TEXT), plain)


def test_a_whole_folder_loads(case: tuple[Any, Outcome, Path], tmp_path: Path) -> None:
    pipe, found, _ = case
    write_model(found.model, found.edited, tmp_path / "model")
    loaded = type(pipe).from_pretrained(tmp_path / "model")
    edited = with_weights(pipe, found, lambda: image(pipe, TEXT))
    torch.testing.assert_close(image(loaded, TEXT), edited, rtol=0, atol=1e-6)


def test_weights_that_do_not_fit(case: tuple[Any, Outcome, Path]) -> None:
    pipe, found, _ = case
    name = found.streams[0].readers[0]
    with pytest.raises(CheckpointError, match="in the model and"):
        replace_weights(denoiser(pipe), {name: torch.ones(1, 2)})
    with pytest.raises(CheckpointError, match="has no layer"):
        replace_weights(denoiser(pipe), {"no.such.weight": torch.ones(1, 2)})
    with pytest.raises(CheckpointError, match="takes no"):
        RuntimeErasure(torch.nn.Linear(2, 2), found.edits.total())


def test_the_bias_is_added_once(case: tuple[Any, Outcome, Path]) -> None:
    """Layers with a bias give for T h what they gave for h with their weight replaced: W T h + b."""
    _, found, _ = case
    total = found.edits.total()
    for stream in found.streams:
        name = stream.readers[0]
        states = torch.randn(3, stream.width, dtype=torch.float64)
        bias = torch.randn(len(found.weights[name]), dtype=torch.float64)
        base, new = (w[name][:, stream.columns].double() for w in (found.weights, found.edited))
        at_run_time = total[stream.name].on_states(states) @ base.T + bias
        torch.testing.assert_close(at_run_time, states @ new.T + bias, rtol=1e-4, atol=1e-4)
