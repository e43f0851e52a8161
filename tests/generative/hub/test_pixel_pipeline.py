"""A small text-to-image model as a folder: the same images from it, an erasure of it, and what is no such folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from generative.errors import CheckpointError
from generative.hub.pixel_pipeline import read_pipeline, write_pipeline
from generative.methods.rece.live import erased as erased_live
from generative.methods.rece.live import replace_weights
from generative.methods.text_to_image.sampler import ddim, predictor
from tests.generative.hub.erasing import erased
from tests.generative.methods.text_to_image.small import FACTS, method_of

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return method_of().networks()["net"].build().eval()


@pytest.fixture(scope="module")
def folder(net: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "tiny"
    write_pipeline(target, method_of().config, FACTS, net.state_dict())
    return target


def test_the_folder_draws_what_the_network_draws(net, folder):
    pipeline, method = read_pipeline(folder), method_of()
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    texts = ["one", "a photo of three"]
    with torch.no_grad():
        states = net.text(input_ids=method.captions.encode([*texts, ""])).last_hidden_state
    torch.testing.assert_close(pipeline.embed(texts), states[:2], rtol=0, atol=1e-6)
    scheduler = method.sampler({"net": net}).scheduler()
    wanted = ddim(predictor(net.unet), noise, states[:2], states[2], scheduler, method.config.sampling)
    torch.testing.assert_close(pipeline.draw(pipeline.embed(texts), noise), wanted, rtol=0, atol=1e-5)
    assert torch.equal(pipeline.image("one", 5), pipeline.image("one", 5))
    assert not torch.equal(pipeline.image("one", 5), pipeline.image("one", 6))


def test_an_erasure_of_it_is_the_same_in_weights_and_before_the_text(folder, tmp_path):
    outcome = erased(folder, tmp_path, concept="two")
    assert all(".attn2." in name for name in outcome.edited)
    assert len(outcome.edited) == 8
    pipeline = read_pipeline(folder)
    given = torch.ones(1, 1, 4, 4), torch.tensor([500]), pipeline.embed(["a photo of two"])
    predict = predictor(pipeline.unet)
    with torch.no_grad(), erased_live(pipeline.unet, outcome.edits.total()):
        live = predict(*given)
    with torch.no_grad():
        before = predict(*given)
        replace_weights(pipeline.unet, outcome.edited)
        after = predict(*given)
    torch.testing.assert_close(after, live, rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 1e-4


def test_words_of_its_vocabulary_are_whole(folder):
    encoder = read_pipeline(folder).encoder
    assert set(encoder.near_words("two", 9)) == {"one", "three", "photo"}


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(CheckpointError, match="StableDiffusionPipeline"):
        read_pipeline(tmp_path)
