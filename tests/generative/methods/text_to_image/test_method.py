"""Captioned images: captions as tokens, the loss in closed form, samples of known densities, and what is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from generative.errors import ConfigError
from generative.method import Context, DataFacts
from generative.methods.text_to_image.captions import END, START, UNKNOWN
from generative.methods.text_to_image.config import TextSamplingConfig, TextToImageConfig
from generative.methods.text_to_image.method import TextToImage
from generative.methods.text_to_image.network import schedule
from generative.methods.text_to_image.sampler import ddim
from generative.randomness import Streams
from generative.training.activations import FakeRun
from tests.generative.methods.text_to_image.small import SETTINGS, batch_of, method_of

pytest.importorskip("diffusers")


def context_of(step: int = 5) -> Context:
    return Context(step, Streams(0, step).within("denoise"), 6)


def loss_of(method, net, batch):
    return method.loss(method.updates()[0], {"net": net}, batch, context_of())


def test_captions_are_numbered_words_between_start_and_end():
    captions = method_of().captions
    assert captions.vocabulary == (END, START, UNKNOWN, "one", "two", "three", "a", "photo", "of")
    assert captions.say(1, 1) == "a photo of Two"
    assert captions.encode(["a photo of Two", "", "seven"]).tolist() == [
        [1, 6, 7, 8, 4, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 2, 0, 0, 0, 0],
    ]
    assert captions.table[1, 1].tolist() == [1, 6, 7, 8, 4, 0]


def test_the_tokenizer_of_the_folder_says_the_same():
    captions = method_of().captions
    texts = ["", " ", "one", "A photo of TWO", "three two one two three two one", "a seven"]
    found = captions.tokenizer()(texts, padding="max_length", max_length=6, truncation=True, return_tensors="pt")
    assert torch.equal(found["input_ids"], captions.encode(texts))
    assert found["attention_mask"].sum(1).tolist() == [2, 2, 3, 6, 6, 4]


def test_the_loss_is_the_squared_error_of_the_noise():
    method, batch = method_of(), batch_of()
    streams = context_of().streams
    noise = streams.normal("noise", batch["sample_id"], (1, 4, 4))
    seen = {}

    def net(noisy, time, tokens):
        seen.update(noisy=noisy, time=time, tokens=tokens)
        return noise + 0.5

    assert loss_of(method, net, batch).value.item() == pytest.approx(6 * 0.25, rel=1e-6)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[seen["time"]].view(-1, 1, 1, 1)
    wanted = kept.sqrt() * batch["sample"].double() + (1 - kept).sqrt() * noise.double()
    torch.testing.assert_close(seen["noisy"].double(), wanted, rtol=0, atol=1e-5)
    assert seen["tokens"].shape == (6, 6)


def test_the_loss_does_not_depend_on_the_batch_and_padding_weighs_nothing():
    method = method_of()
    net = method.networks()["net"].build()
    whole = loss_of(method, net, batch_of(6)).value
    parts = [loss_of(method, net, batch_of(3, first)).value for first in (0, 3)]
    torch.testing.assert_close(whole, sum(parts), rtol=1e-5, atol=0)
    batch = batch_of(6)
    batch["valid"][4:] = False
    torch.testing.assert_close(
        loss_of(method, net, batch).value, loss_of(method, net, batch_of(4)).value, rtol=1e-5, atol=0
    )


def test_every_parameter_has_a_gradient():
    method = method_of()
    net = method.networks()["net"].build()
    loss_of(method, net, batch_of()).value.backward()
    assert [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_captions_are_drawn_evenly_and_dropped_as_often_as_asked():
    method = method_of(caption_dropout=0.25)
    ids = torch.arange(4000)
    tokens = method.tokens(torch.ones(4000).long(), ids, Streams(0))
    empty = (tokens == method.captions.encode([""])).all(1)
    assert empty.float().mean().item() == pytest.approx(0.25, abs=0.03)
    long = (tokens == method.captions.table[1, 1]).all(1)
    assert long.float().mean().item() == pytest.approx(0.375, abs=0.03)
    assert torch.equal(tokens[7:9], method.tokens(torch.ones(2).long(), ids[7:9], Streams(0)))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
def test_ddim_finds_the_point_that_a_caption_stands_for(guidance):
    # For data at one point c the noise is (x - sqrt(a) c) / sqrt(1 - a); guidance moves the point along c - c_empty.
    levels = schedule(1000).alphas_cumprod.double()
    points = torch.tensor([0.3, -0.2, 0.1]).double()

    def predict(x, time, states):
        a = levels[time].view(-1, 1, 1, 1)
        return (x - a.sqrt() * states[:, :1, :1, None]) / (1 - a).sqrt()

    noise = torch.randn(2, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    states, empty = points[:2].view(2, 1, 1), points[2].view(1, 1)
    found = ddim(predict, noise, states, empty, schedule(1000), TextSamplingConfig(steps=9, guidance=guidance))
    torch.testing.assert_close(found.flatten(), 0.1 + guidance * (points[:2] - 0.1), rtol=0, atol=1e-5)


def test_samples_do_not_depend_on_their_batch():
    method = method_of()
    sampler = method.sampler({"net": method.networks()["net"].build().eval()})
    ids = torch.arange(4)
    whole = sampler({"sample_id": ids, "label": ids % 3}, Streams(0))
    alone = sampler({"sample_id": ids[2:3], "label": ids[2:3] % 3}, Streams(0))
    torch.testing.assert_close(whole[2:3], alone, rtol=0, atol=5e-4)  # the first step multiplies rounding by 150
    assert whole.shape == (4, 1, 4, 4)
    assert whole.abs().max() <= 1
    assert sampler({"sample_id": ids}, Streams(0)).shape == whole.shape


def test_flops_are_counted_without_weights():
    method = method_of()
    assert method.flops(batch_of(4)) == 4 * method.flops(batch_of(1)) > 0


def test_a_plan_finds_its_memory_and_operations_without_weights():
    run = FakeRun(method_of())
    small, large = (run.activation_bytes(batch_of(count))["denoise"] for count in (2, 8))
    assert 0 < small < large
    assert run.flops(batch_of(4)) == pytest.approx(method_of().flops(batch_of(4)), rel=0.3)


def test_data_without_the_classes_of_the_words_are_refused():
    config = TextToImageConfig.model_validate(SETTINGS)
    with pytest.raises(ConfigError, match="3 classes, and the data have none"):
        TextToImage(config, DataFacts(sample_shape=(1, 4, 4)))
    with pytest.raises(ConfigError, match="halved 1 times"):
        TextToImage(config, DataFacts(sample_shape=(1, 5, 5), classes=3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"templates": ["a photo"]},
        {"templates": ["{} " + "word " * 9]},
        {"words": ["one", "One", "two"]},
        {"words": ["one", "two three", "four"]},
        {"ema": [1.0]},
        {"network": {"channels": [12, 8]}},
        {"network": {"text_width": 10, "text_heads": 4}},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValidationError):
        TextToImageConfig.model_validate(SETTINGS | wrong)
