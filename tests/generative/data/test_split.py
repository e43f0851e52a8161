"""Held-out text and training text are disjoint and together everything; pieces and shards add up to it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from generative.data.split import batches, cut_into_shards, split, whole

TEXTS = st.lists(st.text(st.sampled_from("ab\né日😀"), max_size=30), min_size=1, max_size=12)


class Texts:
    """A corpus in memory."""

    description = "texts"

    def __init__(self, texts):
        self.data = [text.encode() for text in texts]

    def sizes(self):
        return np.array([len(data) for data in self.data], dtype=np.int64)

    def read(self, document, start, stop):
        return self.data[document][start:stop]

    def texts(self, spans):
        return [self.data[s.document][s.start : s.stop].decode() for s in spans]


def covered(spans):
    return sorted((s.document, byte) for s in spans for byte in range(s.start, s.stop))


@given(TEXTS, st.floats(0.01, 0.99))
def test_every_byte_is_trained_on_or_held_out(texts, fraction):
    corpus = Texts(texts)
    train, held_out = split(corpus, fraction)
    everything = [(d, byte) for d, size in enumerate(corpus.sizes().tolist()) for byte in range(size)]
    assert sorted(covered(train) + covered(held_out)) == everything
    corpus.texts(train + held_out)  # cuts lie between characters
    filled = sum(map(bool, texts))
    if filled > 1:
        assert not {s.document for s in train} & {s.document for s in held_out}
        assert train
        assert held_out
        assert all(s.ends for s in train + held_out)


@given(st.lists(st.integers(1, 50), min_size=20, max_size=60), st.floats(0.1, 0.5))
def test_the_held_out_part_has_about_the_fraction_asked_for(sizes, fraction):
    corpus = Texts(["a" * size for size in sizes])
    held_out = sum(s.stop - s.start for s in split(corpus, fraction)[1])
    assert fraction * sum(sizes) - 50 <= held_out <= fraction * sum(sizes)


@given(st.text(st.sampled_from("aé\n"), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_of_a_single_document_the_end_is_held_out(text, fraction):
    corpus = Texts([text])
    train, held_out = split(corpus, fraction)
    cut = sum(s.stop - s.start for s in train)
    assert 0 <= cut - int(len(corpus.data[0]) * (1 - fraction)) <= 1
    assert [s.ends for s in train] == [False] * len(train)
    assert all(s.ends and s.start == cut for s in held_out)


@given(TEXTS, st.integers(1, 40), st.integers(1, 40))
def test_shards_and_batches_keep_text_order_and_ends(texts, shard_bytes, batch_bytes):
    corpus = Texts(texts)
    shards = cut_into_shards(corpus, whole(corpus), shard_bytes)
    assert all(shards)
    pieces = [span for shard in shards for group in batches(shard, batch_bytes) for span in group]
    assert pieces == [span for shard in shards for span in shard]
    rebuilt = {}
    for span, text in zip(pieces, corpus.texts(pieces), strict=True):
        rebuilt[span.document] = rebuilt.get(span.document, "") + text
        assert span.ends == (span.stop == len(corpus.data[span.document]))
    assert rebuilt == {d: text for d, text in enumerate(texts) if text}


def test_long_documents_are_cut_at_line_ends():
    corpus = Texts(["line one\nline two\nline three\n"])
    shards = cut_into_shards(corpus, whole(corpus), 10)
    assert [corpus.texts(shard) for shard in shards] == [["line one\nline two\n"], ["line three\n"]]
