"""Streams: the same samples for any world and interruption, and nothing of an epoch repeated or skipped."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.data.held_out import first_windows
from generative.data.loader import Loader
from generative.data.stream import TextStream
from generative.data.tokenizers import ByteTokenizer
from generative.errors import ConfigError, DataError


class Numbered:
    """A tokenizer for texts like "7:3", which are the tokens 7, 8, 9; so each token of a corpus can be told apart."""

    name, vocab_size, eos_id = "numbered", 10**6, None

    def encode(self, text):
        start, count = map(int, text.split(":"))
        return np.arange(start, start + count)

    def encode_many(self, texts):
        return [self.encode(text) for text in texts]


class Shards:
    """Shards of documents with the given numbers of tokens, 0, 1, 2, ... over all of them."""

    def __init__(self, sizes):
        ends = np.cumsum([n for shard in sizes for n in shard]).tolist()
        texts = iter(
            [f"{end - n}:{n}" if n else "" for end, n in zip(ends, (n for s in sizes for n in s), strict=True)]
        )
        self.texts = [[next(texts) for _ in shard] for shard in sizes]

    def __len__(self):
        return len(self.texts)

    def read(self, shard, start) -> Iterator[tuple[int, str]]:
        yield from list(enumerate(self.texts[shard]))[start:]


class Recorder:
    """Collectives that note what a rank contributes; with a total, they answer with it."""

    rank, world = 0, 1

    def __init__(self, total=None):
        self.total, self.seen = total, None

    def sum(self, tensor):
        self.seen = tensor
        return tensor if self.total is None else self.total


def states_of(loaders):
    """What `state` gives on each rank when all of them call it together."""
    recorders = [Recorder() for _ in loaders]
    for loader, recorder in zip(loaders, recorders, strict=True):
        loader.state(recorder)
    if recorders[0].seen is None:
        return [loader.state() for loader in loaders]
    total = sum(recorder.seen for recorder in recorders)
    return [json.loads(json.dumps(loader.state(Recorder(total)))) for loader in loaders]


def run(source, batch, world, steps, state=None, workers=0):
    """Windows of each of `steps` global batches, and the state after them."""
    loaders = [
        Loader(source, batch_size=batch, micro_batch_size=2, seed=1, rank=r, world=world, state=state, workers=workers)
        for r in range(world)
    ]
    batches = []
    for _ in range(steps):
        rows = []
        for loader in loaders:
            for micro in next(loader).micro_batches:
                rows += micro["tokens"][micro["valid"]].tolist()
        batches.append(rows)
    states = states_of(loaders)
    for loader in loaders:
        loader.close()
    assert all(s == states[0] for s in states)
    return batches, states[0]


def corpora(longest):
    """Sizes of documents by shard, none without a token."""
    shards = st.lists(st.integers(0, longest), min_size=1, max_size=5).filter(sum)
    return st.lists(shards, min_size=1, max_size=6)


@settings(deadline=None, max_examples=50)
@given(
    sizes=corpora(9),
    lanes=st.none() | st.integers(1, 7),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(1, 5)),
    batch=st.integers(1, 9),
    worlds=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    steps=st.tuples(st.integers(0, 4), st.integers(1, 4)),
)
def test_any_world_and_any_interruption_give_the_same_samples(sizes, lanes, shape, batch, worlds, steps):
    length, stride, block = shape
    source = TextStream(Shards(sizes), Numbered(), length, stride, block, lanes)
    expected, end = run(source, batch, 1, sum(steps))
    before, state = run(source, batch, min(worlds[0], batch), steps[0])
    after, resumed_end = run(source, batch, min(worlds[1], batch), steps[1], state)
    assert before + after == expected
    assert resumed_end == end


def test_streamed_windows_tell_documents_apart():
    shards = Shards([[1]])
    shards.texts = [["ab", "", "c"]]
    source = TextStream(shards, ByteTokenizer(), 4, 4, 1, 1, ByteTokenizer().eos_id)
    found, _ = source.feed(batch_size=1, seed=0, first=0, last=1, state=None).take(0, 0, 1)
    assert found["tokens"].tolist() == [[97, 98, 256, 99, 256]]
    assert found["document"].tolist() == [[0, 0, 0, 1, 1]]


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), length=st.integers(1, 6), stride=st.integers(1, 8))
def test_one_shard_is_one_endless_sequence_of_windows(sizes, length, stride):
    source = TextStream(Shards([sizes]), Numbered(), length, stride, block=1, lanes=None)
    steps = 7
    endless = np.arange(10**4) % sum(sizes)
    windows = [row for batch in run(source, 3, 1, steps)[0] for row in batch]
    assert windows == [endless[i * stride : i * stride + length + 1].tolist() for i in range(3 * steps)]


@settings(deadline=None, max_examples=15)
@given(sizes=corpora(4), block=st.integers(1, 6), lanes=st.none() | st.integers(1, 7))
def test_an_epoch_has_every_token_once(sizes, block, lanes):
    # Windows of one token and its successor at stride 1: each window stands for its first token.
    source = TextStream(Shards(sizes), Numbered(), 1, 1, block, lanes)
    total = sum(map(sum, sizes))
    count = min(lanes or 64, len(sizes))
    rows, _ = run(source, count, 1, 3 * total + 3 * block)
    for lane in range(count):
        own = [n for shard in range(lane, len(sizes), count) for n in _tokens(sizes, shard)]
        firsts = [batch[lane][0] for batch in rows]
        ended = len(own) // block * block  # whole blocks that lie within the first epoch
        assert len(set(firsts[:ended])) == ended
        laps = np.bincount(firsts[: len(firsts) // block * block], minlength=total)
        assert laps.max() - laps[own].min() <= 1
        assert laps.sum() == laps[own].sum()


def _tokens(sizes, shard):
    start = sum(map(sum, sizes[:shard]))
    return range(start, start + sum(sizes[shard]))


def test_blocks_are_shuffled_within_and_stay_apart():
    source = TextStream(Shards([[400]]), Numbered(), 1, 1, block=16, lanes=1)
    firsts = [row[0] for batch in run(source, 16, 1, 20)[0] for row in batch]
    for number in range(20):
        block = firsts[16 * number : 16 * (number + 1)]
        assert sorted(block) == list(range(16 * number, 16 * (number + 1)))
        assert block != sorted(block)
    offsets = {tuple(f - 16 * n for f in firsts[16 * n : 16 * n + 16]) for n in range(20)}
    assert len(offsets) > 15


def test_shards_of_a_lane_come_in_another_order_in_other_epochs():
    source = TextStream(Shards([[1]] * 12), Numbered(), 1, 1, block=1, lanes=1)
    firsts = [row[0] for batch in run(source, 1, 1, 36)[0] for row in batch]
    epochs = [firsts[12 * e : 12 * (e + 1)] for e in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_documents_end_with_eos():
    class Texts(Shards):
        def __init__(self):
            self.texts = [["ab", "", "c"]]

    rows, _ = run(TextStream(Texts(), ByteTokenizer(), 4, 4, 1, 1), 1, 1, 1)
    assert rows == [[[97, 98, 256, 99, 256]]]


def test_a_worker_process_changes_nothing_and_reads_ahead_uncounted(quick_workers):
    source = TextStream(Shards([[5, 9], [20], [3, 3, 3]]), Numbered(), 3, 3, 2, None)
    expected, end = run(source, 5, 1, 6)
    before, state = run(source, 5, 1, 3, workers=2)
    after, resumed_end = run(source, 5, 1, 3, state)
    assert before + after == expected
    assert resumed_end == end


def test_another_batch_size_repeats_and_skips_nothing():
    source = TextStream(Shards([[30], [50]]), Numbered(), 1, 1, 1, None)
    before, state = run(source, 4, 1, 3)
    after, _ = run(source, 6, 1, 2, state)
    firsts = sorted(row[0] for batch in before + after for row in batch)
    assert firsts == [*range(12), *range(30, 42)]


def test_shards_without_text_are_refused():
    with pytest.raises(DataError, match="no text"):
        next(Loader(TextStream(Shards([[0, 0]]), Numbered(), 1, 1, 1, None), batch_size=1, seed=0))


def test_states_that_do_not_fit_are_refused():
    source = TextStream(Shards([[3], [3]]), Numbered(), 1, 1, 1, None)
    _, state = run(source, 4, 1, 1)
    with pytest.raises(ConfigError, match="smaller than the 2 lanes"):
        Loader(source, batch_size=1, seed=1, state=state)
    for other in ((Shards([[3]]), 1, 1, 1), (Shards([[3], [3]]), 2, 1, 1), (Shards([[3], [3]]), 1, 1, 2)):
        with pytest.raises(DataError, match="belongs to other data"):
            Loader(TextStream(other[0], Numbered(), *other[1:], None), batch_size=4, seed=1, state=state)


def test_a_rank_alone_does_not_pass_for_all():
    source = TextStream(Shards([[3], [3]]), Numbered(), 1, 1, 1, None)
    loader = Loader(source, batch_size=4, seed=1, rank=1, world=2)
    next(loader)
    with pytest.raises(RuntimeError, match="collectives"):
        loader.state()


def test_first_windows_are_the_beginning_of_the_text():
    source, ratio = first_windows(Shards([[3, 0, 4], [50]]), Numbered(), length=4, count=3)
    assert source.fetch(np.arange(3))["tokens"].tolist() == [list(range(i, i + 5)) for i in (0, 4, 8)]
    assert ratio == len("0:3" + "3:4" + "7:50") / 57
    fewer, _ = first_windows(Shards([[11]]), Numbered(), length=4, count=100)
    assert len(fewer) == 2
    with pytest.raises(DataError, match="4 tokens, fewer than the 5"):
        first_windows(Shards([[4]]), Numbered(), length=4, count=3)
