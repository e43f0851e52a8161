from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.catalogue import METHODS
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams

NETWORK = TransformerConfig(layers=1, heads=2, width=16, ff_width=24, max_length=16, padding_multiple=8)
SAMPLERS = ["iid", "stratified", "exact"]


def method(**settings):
    return MaskedDiffusion(MaskedDiffusionConfig(network=NETWORK, **settings), DataFacts(60, 12))


def built(room, scale=4.0):
    torch.manual_seed(0)
    net = room.networks()["net"].build()
    with torch.no_grad():
        net.head.weight.mul_(scale)
    return {"net": net}


def pick(batch, rows):
    return {name: tensor[rows] for name, tensor in batch.items()}


def loss_of(room, nets, batch, context):
    (update,) = room.updates()
    loss, divisor = room.loss(update, nets, batch, context), room.divisor(update, batch, context)
    gradients = torch.autograd.grad(loss.value, list(nets["net"].parameters()))
    return loss, divisor, gradients


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_micro_batches_in_any_grouping_add_up_to_the_batch(sampler, ratio, make_batch, context):
    room = method(time_sampler=sampler, random_length_ratio=ratio)
    nets = {"net": built(room)["net"].double()}
    batch = make_batch(size=8, vocab=60)
    whole, divisor, gradients = loss_of(room, nets, batch, context(8))
    parts = [loss_of(room, nets, pick(batch, rows), context(8)) for rows in ([5], [0, 7, 2], [1, 3, 4, 6])]
    torch.testing.assert_close(sum(p[0].value for p in parts), whole.value)
    assert int(sum(p[1] for p in parts)) == int(divisor)
    for name in ("loss_by_noise", "masked_fraction"):
        for side in ("total", "count"):
            together = sum(getattr(p[0].metrics[name], side) for p in parts)
            torch.testing.assert_close(together, getattr(whole.metrics[name], side))
    for i, gradient in enumerate(gradients):
        torch.testing.assert_close(sum(p[2][i] for p in parts), gradient)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_padding_rows_weigh_nothing(sampler, make_batch, context):
    room = method(time_sampler=sampler, random_length_ratio=0.3)
    nets, batch = built(room), make_batch(size=6, vocab=60)
    padded = {**batch, "valid": torch.tensor([True, True, False, True, False, True])}
    real = pick(batch, [0, 1, 3, 5])
    loss, divisor, _ = loss_of(room, nets, padded, context(6))
    expected, expected_divisor, _ = loss_of(room, nets, real, context(6))
    torch.testing.assert_close(loss.value, expected.value)
    assert int(divisor) == int(expected_divisor)
    torch.testing.assert_close(loss.metrics["loss_by_noise"].count, expected.metrics["loss_by_noise"].count)


def test_a_batch_of_padding_gives_zero_and_reaches_every_parameter(make_batch, context):
    room = method()
    batch = {**make_batch(vocab=60), "valid": torch.zeros(4, dtype=torch.bool)}
    loss, divisor, gradients = loss_of(room, built(room), batch, context(4))
    assert loss.value.item() == 0
    assert int(divisor) == 0
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [("iid", "linear"), ("stratified", "loglinear"), ("stratified", "cosine"), ("exact", "linear")],
)
def test_the_expected_loss_is_the_bound_whatever_the_noise(sampler, schedule, make_batch, context):
    """A model's bound does not depend on how levels are drawn: training losses average to the evaluation's figure."""
    room = method(time_sampler=sampler, schedule=schedule, epsilon=1e-3)
    nets, batch = built(room), make_batch(size=64, vocab=60)
    (update,) = room.updates()
    with torch.no_grad():
        losses = torch.stack([room.loss(update, nets, batch, context(64, step)).value for step in range(60)]) / 768
        bound = room.likelihood(nets, 24).nats(batch, Streams(0)).mean() / 12
    stderr = float(losses.std()) / 60**0.5
    assert stderr < 0.03 * float(bound)
    assert float(losses.mean()) == pytest.approx(float(bound), abs=4 * stderr)


def test_steps_have_fresh_noise_and_repeats_have_the_same(make_batch, context):
    room = method()
    nets, batch, (update,) = built(room), make_batch(vocab=60), room.updates()
    values = [float(room.loss(update, nets, batch, context(4, step)).value.detach()) for step in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_random_lengths_cut_their_share_of_the_samples_and_hide_the_rest(make_batch, context):
    room = method(random_length_ratio=0.5)
    nets, batch, (update,) = built(room), make_batch(size=400, vocab=60), room.updates()
    lengths = [int(room.divisor(update, pick(batch, [i]), context(400))) for i in range(400)]
    cut = [n for n in lengths if n < 12]
    assert min(lengths) >= 1
    assert max(lengths) == 12
    assert len(cut) / 400 == pytest.approx(0.5 * 11 / 12, abs=0.08)
    i = lengths.index(5)
    changed = {name: tensor.clone() for name, tensor in pick(batch, [i]).items()}
    changed["tokens"][0, 5:] = 0
    losses = [room.loss(update, nets, b, context(400)).value.detach() for b in (pick(batch, [i]), changed)]
    torch.testing.assert_close(losses[0], losses[1])


def test_metrics_count_each_masked_token_in_its_noise_bucket(make_batch, context):
    room = method(time_sampler="exact")
    batch, (update,) = make_batch(size=12, vocab=60), room.updates()
    metrics = room.loss(update, built(room), batch, context(12)).metrics
    counts = range(1, 13)  # one of each, since levels are spread over the batch
    expected = torch.zeros(10)
    for count in counts:
        expected[min(9, count * 10 // 12)] += count
    assert torch.equal(metrics["loss_by_noise"].count, expected)
    assert float(metrics["masked_fraction"].total) == sum(counts)
    assert float(metrics["masked_fraction"].count) == 12 * 12


def test_the_last_token_of_a_window_is_not_used(make_batch, context):
    room = method()
    nets, batch, (update,) = built(room), make_batch(vocab=60), room.updates()
    changed = {**batch, "tokens": batch["tokens"].clone()}
    changed["tokens"][:, -1] = 0
    assert torch.equal(*(room.loss(update, nets, b, context(4)).value for b in (batch, changed)))


def test_likelihood_of_a_span_sees_what_is_visible_and_nothing_else(make_batch):
    room = method()
    nets, batch = built(room), make_batch(size=3, vocab=60)
    span = torch.zeros(3, 12, dtype=torch.bool)
    span[:, 4] = True
    visible = torch.arange(12).expand(3, 12) < 8
    nats = room.span_likelihood(nets, 1)(batch, visible & ~span, span, Streams(0))
    canvas = batch["tokens"][:, :12].masked_fill(~visible | span, room.mask_id)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(nets["net"](canvas)[:, 4], batch["tokens"][:, 4], reduction="none")
    torch.testing.assert_close(nats.float(), expected)
    everything = torch.ones_like(span)
    whole = room.span_likelihood(nets, 6)(batch, ~everything, everything, Streams(0))
    assert torch.equal(whole, room.likelihood(nets, 6).nats(batch, Streams(0)))


def test_through_the_catalogue():
    entry = METHODS["masked_diffusion"]
    room = entry.build(entry.config()(network=NETWORK, ema=[0.9]), DataFacts(60, 12))
    spec = room.networks()["net"]
    assert spec.ema == (0.9,)
    assert room.mask_id == 64
    assert spec.build().embedding.weight.shape == (65, 16)
    with pytest.raises(ConfigError, match="Did you mean masked_diffusion"):
        _ = METHODS["masked_difusion"]


@pytest.mark.parametrize(
    "settings",
    [
        {"time_sampler": "exact", "schedule": "cosine"},
        {"ema": [1.0]},
        {"epsilon": 1.0},
        {"random_length_ratio": 2},
        {"answers": {"noise_prompts": True, "prompt_dropping": 0.1}},
        {"answers": {"noise_prompts": True, "normalisation": "answers"}},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        MaskedDiffusionConfig(**settings)
