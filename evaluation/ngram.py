"""n-gram baselines: what a table of counts reaches on the same held-out windows.

Add-delta smoothing: p(w | h) = (c(h w) + delta) / (c(h) + delta V) for a history h of n - 1 tokens and V tokens in all.
Where no delta is given, each order takes the one with the best leave-one-out likelihood of the training counts, so no
held-out text is looked at. Counts are kept sparse (only n-grams that occur), sorted by code, so that a trigram table of
a large vocabulary takes memory in proportion to the training tokens counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.text import TextLikelihood, evenly_spaced, per_token
from generative.data.sources import Source
from generative.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NAMES = {1: "unigram", 2: "bigram", 3: "trigram"}
DELTAS = tuple(float(d) for d in np.geomspace(1e-4, 1.0, 25))
"""Candidates for a delta that is chosen by leave-one-out."""

CHUNK_TOKENS = 1_000_000
"""Tokens that are looked at together."""


def ngram_name(order: int) -> str:
    """'unigram', 'bigram', 'trigram', '4-gram', ..."""
    return NAMES.get(order, f"{order}-gram")


@dataclass(frozen=True)
class Counts:
    """Sparse counts of one order; a code is the number that an n-gram spells in base V, most distant token first.

    codes int64[K] ascending with counts int64[K]; contexts int64[C] ascending with totals int64[C], the number of
    n-grams that begin with each context.
    """

    order: int
    vocab_size: int
    codes: Ints
    counts: Ints
    contexts: Ints
    totals: Ints

    def nats(self, codes: Ints, delta: float) -> Floats:
        """-log p of the last token of each n-gram given those before it; any shape."""
        count = _look_up(self.codes, self.counts, codes)
        total = _look_up(self.contexts, self.totals, codes // self.vocab_size)
        return np.asarray(np.log(total + delta * self.vocab_size) - np.log(count + delta), dtype=np.float64)

    def best_delta(self, candidates: Sequence[float] = DELTAS) -> float:
        """The delta with the highest leave-one-out likelihood of the counted text (each n-gram taken out in turn)."""
        total = _look_up(self.contexts, self.totals, self.codes // self.vocab_size)

        def score(delta: float) -> float:
            left_out = np.log(self.counts - 1 + delta) - np.log(total - 1 + delta * self.vocab_size)
            return float(self.counts @ left_out)

        return max(candidates, key=score)


def _look_up(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """values[i] where keys[i] == wanted, 0 where there is no such key; keys ascending."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def _add_up(codes: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Distinct codes, ascending, with the sum of their counts."""
    order = np.argsort(codes, kind="stable")
    codes, counts = codes[order], counts[order]
    first = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    return codes[first], np.add.reduceat(counts, first)


def ngram_codes(rows: Ints, order: int, vocab_size: int) -> Ints:
    """Codes of the n-grams within each row [R, L] -> int64[R, L - order + 1]."""
    length = rows.shape[1] - order + 1
    codes = np.zeros((rows.shape[0], length), dtype=np.int64)
    for place in range(order):
        codes = codes * vocab_size + rows[:, place : place + length]
    return codes


def count_ngrams(chunks: Iterable[Ints], order: int, vocab_size: int) -> Counts:
    """Counts over chunks of rows [R, L]; n-grams do not cross rows.

    Raises:
        DataError: an order whose codes do not fit 63 bits, a token outside the vocabulary, or no n-gram at all.
    """
    if order < 1 or vocab_size**order >= 2**63:
        raise DataError(
            f"{ngram_name(order)} counts over a vocabulary of {vocab_size:,}",
            expected="an order of at least 1 with vocabulary^order below 2^63",
            remedy="ask for a lower order",
        )
    codes, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for rows in chunks:
        _check_tokens(rows, vocab_size)
        found, times = np.unique(ngram_codes(rows, order, vocab_size), return_counts=True)
        codes, counts = _add_up(np.r_[codes, found], np.r_[counts, times]) if len(found) else (codes, counts)
    if not len(codes):
        raise DataError(
            f"no {ngram_name(order)} in the training text",
            expected=f"rows of at least {order} tokens",
            remedy="raise data.sequence_length",
        )
    contexts, totals = _add_up(codes // vocab_size, counts)
    return Counts(order, vocab_size, codes, counts, contexts, totals)


def _check_tokens(rows: Ints, vocab_size: int) -> None:
    if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= vocab_size):
        raise DataError(
            f"token ids from {rows.min()} to {rows.max()}",
            expected=f"0 to {vocab_size - 1}, the vocabulary of the tokenizer",
            remedy="prepare the data with the tokenizer that the configuration names",
        )


@dataclass(frozen=True)
class NgramModel:
    """Tables of orders 1 .. n; a token with fewer than n - 1 tokens before it is predicted by a lower order."""

    tables: tuple[Counts, ...]
    deltas: tuple[float, ...]

    def nats(self, rows: Ints) -> Floats:
        """-log p of every token of rows [R, L] given those before it in its row, float64[R, L]."""
        _check_tokens(rows, self.tables[0].vocab_size)
        out = np.empty(rows.shape, dtype=np.float64)
        for table, delta in zip(self.tables, self.deltas, strict=True):
            if table.order <= rows.shape[1]:
                # Each order overwrites what a lower one said wherever it has its full history.
                out[:, table.order - 1 :] = table.nats(ngram_codes(rows, table.order, table.vocab_size), delta)
        return out


def fit_ngrams(
    chunks: Iterable[Ints], order: int, vocab_size: int, deltas: Sequence[float | None] | None = None
) -> NgramModel:
    """Count orders 1 .. `order`, a pass over the chunks each; deltas[k] belongs to order k + 1, None is chosen."""
    given = list(deltas or []) + [None] * order
    tables = tuple(count_ngrams(chunks, k, vocab_size) for k in range(1, order + 1))
    chosen = (table.best_delta() if delta is None else delta for table, delta in zip(tables, given, strict=False))
    return NgramModel(tables, tuple(chosen))


@dataclass(frozen=True)
class TokenChunks:
    """Windows of a source in chunks of rows; fetched again at each pass, so that memory stays bounded."""

    source: Source
    indices: torch.Tensor
    rows: int

    def __iter__(self) -> Iterator[Ints]:
        for part in torch.split(self.indices, self.rows):
            yield self.source.fetch(part.numpy())["tokens"].numpy().astype(np.int64, copy=False)


def token_chunks(source: Source, count: int | None = None, max_tokens: int | None = None) -> TokenChunks:
    """`count` windows spread evenly over the source, or as many as make about `max_tokens` tokens (one at least)."""
    length = int(source.fetch(evenly_spaced(len(source), 1).numpy())["tokens"].shape[1])
    wanted = [n for n in (count, None if max_tokens is None else max(1, max_tokens // length)) if n is not None]
    return TokenChunks(source, evenly_spaced(len(source), min(wanted, default=len(source))), -(-CHUNK_TOKENS // length))


def evaluate_ngrams(
    train: Source,
    held_out: Source,
    count: int,
    *,
    vocab_size: int,
    tokens_per_window: int,
    bytes_per_token: float,
    orders: Sequence[int] = (1, 2, 3),
    context: int = 0,
    deltas: Sequence[float | None] | None = None,
    max_tokens: int = 10_000_000,
) -> dict[str, TextLikelihood]:
    """Baselines on the windows that `evaluate_likelihood` picks for the same `count`, by name ('bigram').

    Args:
        train, held_out: windows of tokens.
        count: held-out windows to score.
        vocab_size: V, all tokens that the smoothing shares the rest among.
        tokens_per_window: scored tokens T of a window.
        bytes_per_token: mean bytes of a held-out token.
        orders: the n of the n-grams wanted.
        context: leading tokens of a window that are given and not scored (0: masked diffusion, 1: next-token models).
        deltas: smoothing of orders 1, 2, ...; None chooses by leave-one-out.
        max_tokens: training tokens counted at most, spread evenly over the source.
    """
    full = fit_ngrams(token_chunks(train, max_tokens=max_tokens), max(orders), vocab_size, deltas)
    windows = token_chunks(held_out, count)
    figures = {}
    for order in orders:
        model = NgramModel(full.tables[:order], full.deltas[:order])
        nats = np.concatenate([_window_nats(model, rows, context, tokens_per_window) for rows in windows])
        note = (
            f"counts of {full.tables[order - 1].totals.sum():,} training {ngram_name(order)}s, "
            f"add-delta {model.deltas[-1]:.3g}, "
            f"{len(nats):,} held-out windows of {tokens_per_window:,} tokens"
        )
        figures[ngram_name(order)] = per_token(torch.from_numpy(nats), tokens_per_window, bytes_per_token, note)
    return figures


def _window_nats(model: NgramModel, rows: Ints, context: int, tokens: int) -> Floats:
    return np.asarray(model.nats(rows[:, : context + tokens])[:, context:].sum(axis=1))
