"""Weights that began as an autoregressive model's: outputs shifted by one."""

from __future__ import annotations

import pytest
import torch

from generative.method import DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.likelihood import Scorer
from generative.methods.masked_diffusion.losses import draw_masking
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.randomness import Streams
from tests.support.sampling_cases import CONFIG, MASK, VOCAB, denoiser, sharp_net

MASKED = torch.tensor([[True, False, True, True, False, True], [False, True, True, False, False, True]])


@pytest.fixture(scope="module")
def net():
    return sharp_net()


def shifted_nll(net, ids, mask):
    """By hand: the output one place earlier, and the first place's own."""
    with torch.no_grad():
        logits = net(ids.masked_fill(mask, MASK)).log_softmax(-1)
    earlier = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    return -earlier.gather(2, ids[:, :, None])[:, :, 0].masked_fill(~mask, 0.0)


def test_losses_and_predictions_are_shifted_alike(net):
    ids = torch.arange(12).view(2, 6)
    model = denoiser(net, shift=True)
    expected = shifted_nll(net, ids, MASKED)
    torch.testing.assert_close(Scorer(model)(ids, MASKED, MASKED), expected)
    rows = MASKED.flatten().nonzero()[:, 0]
    with torch.no_grad():
        logits = model.net(ids.masked_fill(MASKED, MASK)).flatten(0, 1)
        found = model(ids.masked_fill(MASKED, MASK), ~MASKED, rows)
    sources = [row if row % 6 == 0 else row - 1 for row in rows.tolist()]
    torch.testing.assert_close(found[:, :VOCAB], logits[sources, :VOCAB])


def test_training_is_shifted_too(net, make_batch, context):
    method = MaskedDiffusion(MaskedDiffusionConfig(network=CONFIG, shift=True), DataFacts(VOCAB, 6))
    batch = make_batch(size=3, length=6, vocab=VOCAB)
    masking = draw_masking(method.config, batch, context(3), None)
    loss = method.loss(method.updates()[0], {"net": net}, batch, context(3)).value
    expected = masking.weight[:, None] * shifted_nll(net, batch["tokens"][:, :-1], masking.mask)
    torch.testing.assert_close(float(loss.detach()), float(expected.sum()), rtol=1e-9, atol=0)


@pytest.mark.parametrize("estimator", ["exact_count", "monte_carlo", "chain_rule"])
@pytest.mark.parametrize("settings", [{}, {"shift": True}, {"block_size": 3}])
def test_each_estimator_through_the_method(net, make_batch, estimator, settings):
    method = MaskedDiffusion(MaskedDiffusionConfig(network=CONFIG, **settings), DataFacts(VOCAB, 6))
    door = method.likelihood({"net": net}, 64, estimator)
    nats = door.nats(make_batch(size=3, length=6, vocab=VOCAB), Streams(0))
    assert nats.shape == (3,)
    assert (nats > 0).all()
    assert door.bound == (None if estimator == "chain_rule" else "upper")
    again = door.nats({k: v[1:] for k, v in make_batch(size=3, length=6, vocab=VOCAB).items()}, Streams(0))
    torch.testing.assert_close(again, nats[1:])
