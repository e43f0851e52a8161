from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.likelihood import (
    LEVEL_POWER,
    Scorer,
    chain_rule,
    count_probability,
    even_masks,
    exact_count,
    independent_draws,
    level_counts,
)
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams


@pytest.fixture(scope="module")
def scorer():
    """A network with sharp, context-dependent predictions over two tokens, in float64."""
    torch.manual_seed(0)
    config = TransformerConfig(layers=1, heads=2, width=16, ff_width=16, vocab_size=2, padding_multiple=1)
    net = Transformer(config, causal=False, mask_row=True).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    return Scorer(Denoiser(net, 2))


class Enumerated:
    """Stands for `Streams`: row b of the batch gets the b-th combination of given noise."""

    def __init__(self, **noise):
        self.noise = noise

    def uniform(self, name, samples, shape=(), dtype=torch.float64):
        assert self.noise[name].shape == (len(samples), *shape)
        return self.noise[name]


def bound_over_all_orders(score, ids, target):
    """The bound by another route: the mean over all generation orders of the chain-rule NLL in that order."""
    places, total = target[0].nonzero()[:, 0].tolist(), 0.0
    for order in itertools.permutations(places):
        for i, place in enumerate(order):
            mask = torch.zeros_like(target)
            mask[0, list(order[i:])] = True
            total += float(score(ids, mask, target)[0, place])
    return total / math.factorial(len(places))


def cells_of_a_pair(first, draws, length):
    """Midpoints and widths of the offsets within which the counts of strata `first` and `first + 1` do not change."""
    edges = {0.0, 1.0}
    for k in range(1, length):
        t = draws * (k / length) ** (1 / LEVEL_POWER)
        edges |= {u for u in (t - first, 1 - (t - first - 1)) if 0 < u < 1}
    ordered = sorted(edges)
    return [((low + high) / 2, high - low) for low, high in itertools.pairwise(ordered)]


@pytest.mark.parametrize("draws", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("prompt", [0, 2])
def test_exact_count_is_unbiased_by_enumeration_of_all_its_noise(scorer, draws, prompt):
    """All orders of positions and all cells of the level offsets, each with its probability: the mean is the bound."""
    L = 3
    ids = torch.tensor([[1, 0, 1, 1, 0][: L + prompt]])
    target = torch.arange(L + prompt)[None] >= prompt
    levels = list(itertools.product(*(cells_of_a_pair(first, draws, L) for first in range(0, draws, 2))))
    orders = list(itertools.permutations([0.2, 0.5, 0.8]))
    both = list(itertools.product(levels, orders))
    noise = Enumerated(
        level=torch.tensor([[u for u, _ in level] for level, _ in both], dtype=torch.float64),
        order=torch.tensor([[0.5] * prompt + list(order) for _, order in both], dtype=torch.float64),
    )
    n = len(both)
    probability = torch.tensor([math.prod(width for _, width in level) for level, _ in both], dtype=torch.float64)
    probability /= len(orders)
    estimates = exact_count(scorer, ids.expand(n, -1), target.expand(n, -1), noise, torch.arange(n), draws)
    assert float(estimates.std()) > 0.01, "noise has no effect: the test would prove nothing"
    expected = bound_over_all_orders(scorer, ids, target)
    assert float((probability * estimates).sum()) == pytest.approx(expected, rel=1e-12)


def test_iid_draws_agree_with_the_bound(scorer):
    ids, n = torch.tensor([[1, 0, 1, 1]]), 4000
    target = torch.ones_like(ids, dtype=torch.bool)
    for spread in (False, True):
        estimates = independent_draws(
            scorer, ids.expand(n, -1), target.expand(n, -1), Streams(5), torch.arange(n), 2, spread=spread, epsilon=1e-3
        )
        stderr = float(estimates.std()) / n**0.5
        assert float(estimates.mean()) == pytest.approx(bound_over_all_orders(scorer, ids, target), abs=4 * stderr)


def test_chain_rule_is_a_normalised_distribution_and_the_bound_is_an_upper_one(scorer):
    every = torch.tensor(list(itertools.product([0, 1], repeat=3)))
    target = torch.ones_like(every, dtype=torch.bool)
    assert float((-chain_rule(scorer, every, target)).exp().sum()) == pytest.approx(1.0, rel=1e-10)
    bounds = [bound_over_all_orders(scorer, row[None], target[:1]) for row in every]
    assert sum(math.exp(-bound) for bound in bounds) < 1.0


def test_a_target_of_one_token_needs_one_draw(scorer):
    ids, target = torch.tensor([[1, 0, 1]]), torch.tensor([[False, True, False]])
    one = exact_count(scorer, ids, target, Streams(0), torch.tensor([0]), 1)
    assert float(one) == pytest.approx(float(chain_rule(scorer, ids, target)), rel=1e-12)


def test_figures_do_not_depend_on_the_batch(scorer):
    ids = torch.randint(2, (5, 9), generator=torch.Generator().manual_seed(0))
    target = torch.arange(9) >= torch.tensor([0, 3, 8, 1, 5])[:, None]
    samples = torch.tensor([4, 90, 2, 17, 1])
    whole = exact_count(scorer, ids, target, Streams(1), samples, 6)
    for i in range(5):
        alone = exact_count(scorer, ids[i, None], target[i, None], Streams(1), samples[i, None], 6)
        assert float(alone) == pytest.approx(float(whole[i]), rel=1e-12)


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 2**32))
def test_levels_lie_one_in_each_stratum_and_masks_have_their_sizes(draws, length, seed):
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(1, -(-draws // 2), generator=generator, dtype=torch.float64)
    lengths = torch.tensor([length])
    counts = level_counts(uniform, lengths, draws)
    assert int(counts.min()) >= 1
    assert int(counts.max()) <= length
    masks = even_masks(counts, 1.0 / counts, lengths)
    assert torch.equal(masks.sum(2), counts)


@given(st.integers(1, 50))
def test_probabilities_of_the_counts_sum_to_one(length):
    every = torch.arange(1, length + 1)[None]
    probability = count_probability(every, torch.tensor([length]))
    assert float(probability.sum()) == pytest.approx(1.0, rel=1e-12)
    assert bool((probability > 0).all())


def test_positions_gather_about_equal_weights():
    """Weights of 32 places over 16 masks: much closer together than those of masks drawn one by one."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((50,), 32)
    counts = level_counts(torch.rand(50, 8, generator=generator, dtype=torch.float64), lengths, 16)
    weights = 1.0 / (16 * counts * count_probability(counts, lengths))
    by_themselves = torch.rand(50, 16, 32, generator=generator).argsort(-1).argsort(-1) < counts[:, :, None]
    even, uneven = (
        (masks * weights[:, :, None]).sum(1).std() for masks in (even_masks(counts, weights, lengths), by_themselves)
    )
    assert even < 0.4 * uneven


def test_estimates_vary_less_than_half_as_much_as_iid_draws(golden, shakespeare):
    ids = golden("shakespeare_eval")["windows"][:8].long()
    target, samples = torch.ones_like(ids, dtype=torch.bool), torch.arange(8)
    score = Scorer(Denoiser(shakespeare, 65))
    spread = {
        estimator: torch.stack([estimator(score, ids, target, Streams(seed), samples, 8) for seed in range(10)]).var(0)
        for estimator in (exact_count, independent_draws)
    }
    ratio = (spread[independent_draws].mean() / spread[exact_count].mean()).sqrt()
    assert float(ratio) > 2


def test_published_checkpoint_has_its_figure(golden, golden_folder, shakespeare):
    """The trained model's bound on 64 held-out windows, 2.419 +- 0.03 nats a token, by each estimator."""
    ids = golden("shakespeare_eval")["windows"].long()
    target, samples = torch.ones_like(ids, dtype=torch.bool), torch.arange(64)
    score = Scorer(Denoiser(shakespeare, 65))
    figures = {
        "exact": exact_count(score, ids, target, Streams(0), samples, 8),
        "iid": independent_draws(score, ids, target, Streams(0), samples, 12, epsilon=1e-3),
        "spread": independent_draws(score, ids, target, Streams(0), samples, 12, spread=True),
    }
    for name, nats in figures.items():
        assert float(nats.mean()) / 64 == pytest.approx(2.419, abs=0.03), name
    chain = chain_rule(score, ids[:16], target[:16]).mean() / 64
    stated = json.loads((golden_folder / "shakespeare_results.json").read_text())
    expected = stated["estimators_on_shipped_bf16_checkpoint"]["chain_rule_nll_per_token_first16"]
    assert float(chain) == pytest.approx(expected, rel=1e-4)
