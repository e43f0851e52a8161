import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ngram import NgramModel, count_ngrams, evaluate_ngrams, fit_ngrams, token_chunks
from generative.errors import DataError


class Text:
    """Windows of a token sequence with a stride of their length."""

    def __init__(self, tokens, length):
        self.tokens, self.length = torch.as_tensor(tokens), length

    def __len__(self):
        return (len(self.tokens) - 1) // self.length

    def fetch(self, indices):
        return {"tokens": torch.stack([self.tokens[int(i) * self.length :][: self.length + 1] for i in indices])}


def rows(*text):
    return np.array([[int(c) for c in row] for row in text], dtype=np.int64)


def test_bigram_probabilities_follow_the_formula():
    model = fit_ngrams([rows("00102")], 2, 3, [1.0, 0.5])
    nats = model.nats(rows("0012"))[0]
    # counts: 0 0 0 1 2 -> unigrams 3, 1, 1; after 0: {0: 1, 1: 1, 2: 1}; after 1: {0: 1}
    expected = [(3 + 1) / (5 + 3), 1.5 / 4.5, 1.5 / 4.5, 0.5 / 2.5]
    assert nats == pytest.approx([-math.log(p) for p in expected])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(1, 4), st.floats(1e-3, 2))
def test_probabilities_of_each_context_sum_to_one(tokens, order, delta):
    table = count_ngrams([np.array([tokens])], order, 4)
    contexts = np.arange(4 ** (order - 1))[:, None] * 4
    total = np.exp(-table.nats(contexts + np.arange(4), delta)).sum(axis=1)
    assert total == pytest.approx(np.ones(len(total)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=12), st.integers(1, 3))
def test_counts_do_not_depend_on_the_chunks(text, order):
    whole = count_ngrams([np.array(text)], order, 5)
    parts = count_ngrams((np.array([row]) for row in text), order, 5)
    for name in ("codes", "counts", "contexts", "totals"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.counts.sum() == len(text) * (6 - order + 1)


def test_leave_one_out_prefers_little_smoothing_for_a_rule_and_much_for_noise():
    rule = count_ngrams([np.arange(2000)[None] % 10], 2, 10)
    noise = count_ngrams([np.random.default_rng(0).integers(0, 60, (1, 2000))], 2, 60)
    assert rule.best_delta() < 0.01 < 0.3 < noise.best_delta()


def test_the_chosen_delta_is_near_the_best_one_on_new_text():
    rng = np.random.default_rng(1)
    chain = rng.dirichlet(np.full(12, 0.3), 12)

    def walk(n):
        state, out = 0, []
        for _ in range(n):
            state = int(rng.choice(12, p=chain[state]))
            out.append(state)
        return np.array([out])

    table, fresh = count_ngrams([walk(1500)], 2, 12), walk(6000)
    codes = fresh[:, :-1] * 12 + fresh[:, 1:]
    best = min(table.nats(codes, d).mean() for d in np.geomspace(1e-4, 1, 25))
    assert table.nats(codes, table.best_delta()).mean() < best + 0.005


def test_a_known_chain_is_found_to_its_entropy():
    # Each token is followed by itself + 0 or + 1 with equal chance: entropy ln 2 for order 2 and 3, ln 5 for order 1.
    steps = np.random.default_rng(2).integers(0, 2, 60_000)
    text = np.cumsum(steps) % 5
    figures = evaluate_ngrams(
        Text(text[:50_000], 50),
        Text(text[50_000:], 50),
        1000,
        vocab_size=5,
        tokens_per_window=50,
        bytes_per_token=1,
        context=1,
    )
    assert list(figures) == ["unigram", "bigram", "trigram"]
    assert figures["unigram"].nats_per_token.value == pytest.approx(math.log(5), abs=0.01)
    for name in ("bigram", "trigram"):
        assert figures[name].bits_per_byte.value == pytest.approx(1, abs=0.01)
    assert figures["bigram"].nats_per_token.n == 199


def test_without_context_the_first_token_is_scored_by_lower_orders():
    model = fit_ngrams([rows("0101010101")], 3, 2, [0.1] * 3)
    first = model.nats(rows("010"))[0]
    assert first[0] == pytest.approx(NgramModel(model.tables[:1], model.deltas[:1]).nats(rows("010"))[0, 0])
    assert first[1] == pytest.approx(NgramModel(model.tables[:2], model.deltas[:2]).nats(rows("010"))[0, 1])


def test_only_the_tokens_asked_for_are_counted():
    chunks = token_chunks(Text(np.zeros(10_001, dtype=np.int64), 100), max_tokens=1010)
    assert sum(part.size for part in chunks) == 1010


@pytest.mark.parametrize(("tokens", "order", "vocab"), [("01", 3, 2), ("012", 1, 2), ("01", 5, 32_000)])
def test_what_cannot_be_counted_is_said(tokens, order, vocab):
    with pytest.raises(DataError):
        count_ngrams([rows(tokens)], order, vocab)


def test_held_out_tokens_outside_the_vocabulary_are_refused():
    with pytest.raises(DataError, match="token ids"):
        fit_ngrams([rows("0101")], 2, 2).nats(rows("012"))
