"""Block diffusion: what sees what, and the two ends, one block over everything and blocks of one token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generative.errors import GenerativeError
from generative.method import DataFacts
from generative.methods.masked_diffusion.blocks import block_causal, noisy_and_clean, split_blocks
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.likelihood import Scorer, chain_rule, exact_count, independent_draws
from generative.methods.masked_diffusion.losses import draw_masking
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.randomness import Streams
from tests.support.sampling_cases import CONFIG, MASK, VOCAB, denoiser, sharp_net


@pytest.fixture(scope="module")
def net():
    return sharp_net()


def method_of(**settings):
    config = MaskedDiffusionConfig(network=CONFIG, **settings)
    return MaskedDiffusion(config, DataFacts(VOCAB, 12))


def ids_of(count=3, length=12):
    return torch.randint(VOCAB, (count, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("length", "block"), [(8, 4), (12, 3)])
def test_masks_are_those_of_the_peers(golden, length, block):
    blocks = torch.arange(length) // block
    assert torch.equal(noisy_and_clean(blocks), golden("schedules")[f"bd3lm_mask_n{length}_block{block}"])


def test_blocks_are_split_in_order_and_filled_up():
    split = split_blocks(torch.arange(10).view(2, 5), 2, -1)
    assert split.tolist() == [[0, 1], [2, 3], [4, -1], [5, 6], [7, 8], [9, -1]]
    assert block_causal(torch.tensor([3]), torch.arange(6), 2).tolist() == [[True] * 4 + [False] * 2]


def loss_of(method, net, batch, context):
    return method.loss(method.updates()[0], {"net": net}, batch, context(len(batch["tokens"]))).value


@pytest.mark.parametrize("sampler", ["iid", "stratified", "exact"])
def test_one_block_over_everything_is_plain_diffusion(net, make_batch, context, sampler):
    batch = make_batch(size=5, length=12, vocab=VOCAB)
    plain = loss_of(method_of(time_sampler=sampler), net, batch, context)
    whole = loss_of(method_of(time_sampler=sampler, block_size=12), net, batch, context)
    torch.testing.assert_close(whole, plain, rtol=1e-12, atol=0)


def test_blocks_of_one_token_are_an_autoregressive_model(net):
    """Each token masked, given all before it: the bound is exact, whatever the noise, and the chain rule's."""
    score, ids = Scorer(denoiser(net, 1)), ids_of()
    everything = torch.ones_like(ids, dtype=torch.bool)
    bound = exact_count(score, ids, everything, Streams(0), torch.arange(3), 3)
    exact = chain_rule(score, ids, everything)
    torch.testing.assert_close(bound, exact, rtol=1e-9, atol=0)
    sampled = chain_rule(Scorer(denoiser(net, None)), ids, everything)
    assert not torch.allclose(exact, sampled, rtol=1e-3)


def test_a_block_given_the_clean_ones_before_it_is_what_the_sampler_sees(net):
    """One pass over [x_t ; x_0] gives each block what a pass over the clean prefix with that block masked gives."""
    model, ids, size = replace(denoiser(net, 4), vocab_size=None), ids_of(2), 4
    mask = torch.rand(2, 12, generator=torch.Generator().manual_seed(1)) < 0.6
    nll = Scorer(model)(ids, mask, torch.ones_like(mask))
    for start in range(0, 12, size):
        inside = torch.zeros_like(mask)
        inside[:, start : start + size] = mask[:, start : start + size]
        canvas = ids.masked_fill(inside, MASK)[:, : start + size]
        rows = inside[:, : start + size].flatten().nonzero()[:, 0]
        with torch.no_grad():
            logits = model(canvas, torch.zeros_like(canvas, dtype=torch.bool), rows)
        target = ids[:, : start + size].flatten()[rows, None]
        torch.testing.assert_close(nll[inside], -logits.log_softmax(1).gather(1, target)[:, 0])


@pytest.mark.parametrize("block_times", ["block", "sequence"])
@pytest.mark.parametrize("sampler", ["iid", "stratified", "exact"])
def test_the_mean_loss_is_the_sum_of_the_blocks_bounds(net, make_batch, context, sampler, block_times):
    n = 1500
    ids = ids_of(1, 13)
    batch = make_batch(ids.expand(n, -1))
    method = method_of(time_sampler=sampler, block_size=5, block_times=block_times, epsilon=1e-3)
    mean = float(loss_of(method, net, batch, context).detach()) / n
    score = Scorer(denoiser(net, 5))
    everything = torch.ones(1, 12, dtype=torch.bool)
    many = torch.arange(64)
    bounds = exact_count(score, ids[:, :-1].expand(64, -1), everything.expand(64, -1), Streams(4), many, 8)
    assert mean == pytest.approx(float(bounds.mean()), rel=0.05)


def test_estimators_agree_on_the_bound_of_blocks(net):
    n = 400
    ids, everything = ids_of(1).expand(n, -1), torch.ones(n, 12, dtype=torch.bool)
    score = Scorer(denoiser(net, 4, guidance=0.5))
    exact = exact_count(score, ids, everything, Streams(0), torch.arange(n), 2)
    iid = independent_draws(score, ids, everything, Streams(1), torch.arange(n), 2)
    error = float((exact.var() / n + iid.var() / n).sqrt())
    assert abs(float(exact.mean() - iid.mean())) < 4 * error


def test_levels_of_blocks_are_spread_and_masks_stay_inside(make_batch, context):
    batch = make_batch(size=8, length=10, vocab=VOCAB)
    config = MaskedDiffusionConfig(network=CONFIG, block_size=4, time_sampler="exact")
    masking = draw_masking(config, batch, context(8), None)
    counts = split_blocks(masking.mask.int(), 4).sum(1).view(8, 3)
    assert (counts >= 1).all()
    assert (counts[:, 2] <= 2).all()
    # Eight strata over the samples, for each block: each count of a block of four comes twice.
    assert counts[:, 0].bincount(minlength=5).tolist() == counts[:, 1].bincount(minlength=5).tolist() == [0, 2, 2, 2, 2]
    share = counts / torch.tensor([4, 4, 2])
    torch.testing.assert_close(masking.level[:, [0, 4, 8]], share)


@pytest.mark.parametrize("settings", [{"random_length_ratio": 0.1}, {"shift": True}])
def test_what_does_not_go_with_blocks_is_refused(settings):
    with pytest.raises((GenerativeError, ValueError)):
        method_of(block_size=4, **settings)
