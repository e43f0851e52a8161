"""Windows of several documents: the loss of each is what it would be as a sample by itself."""

from __future__ import annotations

import pytest
import torch

from generative.method import DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.documents import segment_sizes, segments_of
from generative.methods.masked_diffusion.losses import Masking, draw_lengths, draw_masking, masked_cross_entropy
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.randomness import Streams
from tests.support.sampling_cases import CONFIG, MASK, VOCAB, sharp_net

DOCUMENT = torch.tensor([[0] * 5 + [1] * 3 + [2] + [3] * 4, [0] * 13, [0] * 2 + [1] * 11])
FORMS = [{}, {"shift": True}, {"block_size": 2}, {"block_size": 3, "block_times": "sequence"}]


@pytest.fixture(scope="module")
def net():
    return sharp_net()


def method_of(**settings):
    return MaskedDiffusion(MaskedDiffusionConfig(network=CONFIG, **settings), DataFacts(VOCAB, 12))


@pytest.fixture
def batch(make_batch):
    return make_batch(size=3, length=12, vocab=VOCAB) | {"document": DOCUMENT}


@pytest.mark.parametrize("sampler", ["iid", "stratified", "exact"])
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_sum_over_separate_documents(net, batch, context, sampler, form):
    method = method_of(time_sampler=sampler, **form)
    update, ids = method.updates()[0], batch["tokens"][:, :-1]
    value = method.loss(update, {"net": net}, batch, context(3)).value
    masking = draw_masking(method.config, batch, context(3), None)
    apart = 0.0
    for row in range(3):
        for number in DOCUMENT[row, :-1].unique():
            at = DOCUMENT[row, :-1] == number
            own = Masking(*(part[row, at][None] for part in (masking.mask, masking.level, masking.weight)))
            yes = torch.ones(1, dtype=torch.bool)
            apart += float(masked_cross_entropy(net, ids[row, at][None], own, MASK, yes, None, method.form)[0].detach())
    assert float(value.detach()) == pytest.approx(apart, rel=1e-12)
    assert int(method.divisor(update, batch, context(3))) == 36


@pytest.mark.parametrize("sampler", ["stratified", "exact"])
def test_one_document_is_a_plain_window(net, batch, context, sampler):
    whole = batch | {"document": torch.zeros_like(DOCUMENT)}
    plain = {key: value for key, value in batch.items() if key != "document"}
    for form in (FORMS[0], FORMS[2]):
        method = method_of(time_sampler=sampler, **form)
        losses = [method.loss(method.updates()[0], {"net": net}, b, context(3)).value for b in (whole, plain)]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    masking = draw_masking(method_of(time_sampler=sampler).config, whole, context(3), None)
    assert (masking.level == masking.level[:, :1]).all()


@pytest.mark.parametrize("block_times", ["block", "sequence"])
def test_levels_belong_to_documents_or_their_blocks(batch, context, block_times):
    config = method_of(time_sampler="stratified", block_size=2, block_times=block_times).config
    masking = draw_masking(config, batch, context(3), None)
    document = DOCUMENT[:, :-1]
    unit = segments_of(document, 2 if block_times == "block" else None)
    for row in range(3):
        levels = [masking.level[row, unit[row] == number].unique() for number in unit[row].unique()]
        assert all(len(level) == 1 for level in levels)
        # Spread over the segments: no two are in the same stratum.
        times = torch.cat(levels)
        assert len(times.unique()) == len(times)


def test_blocks_begin_anew_with_a_document():
    segment = segments_of(DOCUMENT[:1], 2)
    assert segment.tolist() == [[0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 6, 7, 7]]
    assert segment_sizes(segment).tolist() == [[2, 2, 2, 2, 1, 2, 2, 1, 1, 2, 2, 2, 2]]


def test_exact_counts_are_those_of_each_segment(batch, context):
    masking = draw_masking(method_of(time_sampler="exact").config, batch, context(3), None)
    sizes = segment_sizes(DOCUMENT[:, :-1])
    masked = torch.zeros(3, 4, dtype=torch.int64).scatter_add(1, DOCUMENT[:, :-1], masking.mask.long())
    expected = (masking.level * sizes).round().long()
    assert torch.equal(masked.gather(1, DOCUMENT[:, :-1]), expected)
    assert (expected >= 1).all()


def test_noise_does_not_depend_on_the_batch(batch, context):
    for sampler in ("iid", "stratified", "exact"):
        config = method_of(time_sampler=sampler, block_size=2).config
        whole = draw_masking(config, batch, context(3), None)
        for row in range(3):
            alone = draw_masking(config, {k: v[row : row + 1] for k, v in batch.items()}, context(3), None)
            assert torch.equal(alone.mask[0], whole.mask[row])
            assert torch.equal(alone.weight[0], whole.weight[row])


@pytest.mark.parametrize("sampler", ["stratified", "exact"])
def test_random_lengths_cut_the_window(net, batch, context, sampler):
    method = method_of(time_sampler=sampler, random_length_ratio=1.0)
    update = method.updates()[0]
    lengths = draw_lengths(method.config, batch, context(3))
    masking = draw_masking(method.config, batch, context(3), lengths)
    assert not masking.mask[torch.arange(12) >= lengths[:, None]].any()
    assert int(method.divisor(update, batch, context(3))) == int(lengths.sum())
    longer = batch | {"tokens": batch["tokens"].clone()}
    longer["tokens"][:, :-1][torch.arange(12) >= lengths[:, None]] = 7
    losses = [method.loss(update, {"net": net}, b, context(3)).value for b in (batch, longer)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


def apart(score, batch):
    """Sums over documents that are windows of their own; the last token of a window is not scored."""
    found = []
    for tokens, numbers in zip(batch["tokens"][:, :-1], batch["document"][:, :-1], strict=True):
        parts = [tokens[numbers == number] for number in numbers.unique()]
        found.append(sum(float(score(torch.cat([part, part[:1]])[None])) for part in parts))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
def test_left_to_right_each_document_is_evaluated_by_itself(net, batch, make_batch, form):
    door = method_of(**form).likelihood({"net": net}, estimator="chain_rule")
    expected = apart(lambda tokens: door.nats(make_batch(tokens), Streams(0)), batch)
    torch.testing.assert_close(door.nats(batch, Streams(0)), expected, rtol=1e-9, atol=0)


def test_the_bound_of_blocks_of_one_token_is_that_of_each_document(net, batch, make_batch):
    """Such blocks leave nothing to chance."""
    door = method_of(block_size=1).likelihood({"net": net}, 2)
    expected = apart(lambda tokens: door.nats(make_batch(tokens), Streams(0)), batch)
    torch.testing.assert_close(door.nats(batch, Streams(0)), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_document_is_not_told_what_stands_in_another(net, batch, form):
    """Spans and noise levels too: the second document of a window stays as it was whatever the first is."""
    method, span = method_of(**form), torch.zeros(3, 12, dtype=torch.bool)
    span[0, 5:8] = span[2, 2:12] = span[1, 6:9] = True
    changed = batch | {"tokens": batch["tokens"].clone()}
    changed["tokens"][0, :5] = changed["tokens"][2, :2] = (batch["tokens"][0, 0] + 1) % VOCAB
    for estimator in ("exact_count", "monte_carlo", "chain_rule"):
        score = method.span_likelihood({"net": net}, 6, estimator)
        before, after = (score(b, ~span, span, Streams(0)) for b in (batch, changed))
        torch.testing.assert_close(after, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_the_bound_lies_where_its_mean_over_many_draws_does(net, batch, form):
    """Two estimators of one bound, both with documents."""
    doors = [method_of(**form).likelihood({"net": net}, 4, name).nats for name in ("exact_count", "monte_carlo")]
    # The same three windows a hundred times as samples of their own, which have their own noise.
    many = {key: value.repeat(100, *[1] * (value.ndim - 1)) for key, value in batch.items()}
    many |= {"sample_id": torch.arange(300), "position": torch.arange(300)}
    exact, free = (nats(many, Streams(0)).unflatten(0, (100, 3)) for nats in doors)
    error = ((exact.var(0) + free.var(0)) / 100).sqrt()
    assert ((exact.mean(0) - free.mean(0)).abs() < 4.5 * error).all()


def test_noise_levels_see_one_document(net, batch):
    method = method_of()
    plain = {key: value for key, value in batch.items() if key != "document"}
    with_documents, without = (method.noise_profile({"net": net}, [0.1, 0.9])(b, Streams(0)) for b in (batch, plain))
    assert torch.equal(with_documents[1], without[1])
    assert not torch.isclose(with_documents[[0, 2]], without[[0, 2]]).all()
