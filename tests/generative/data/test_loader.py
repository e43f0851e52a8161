"""The same samples in the same order for any world size, micro-batch, workers and interruption."""

import json
import os
import pickle
import signal

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.data.loader import Loader
from generative.errors import ConfigError, DataError
from tests.support.leftovers import wait_until_gone


class Numbers:
    """Sample i is the number i, so that batches show which samples they hold."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def fetch(self, indices):
        return {"index": torch.from_numpy(np.array(indices))}


class Failing(Numbers):
    def fetch(self, indices):
        raise DataError("sample 7 is unreadable", "a readable sample", "mend it")


def read(share):
    """(sample_id, position, index) of the valid rows of a share."""
    names = ("sample_id", "position", "index")
    rows = [
        tuple(row)
        for batch in share.micro_batches
        for row, valid in zip(
            zip(*(batch[n].tolist() for n in names), strict=True), batch["valid"].tolist(), strict=True
        )
        if valid
    ]
    assert len(rows) == share.size
    assert rows[0][0] == share.start
    return rows


def run(count, batch, micro, world, steps, state=None, seed=3, **options):
    """Rows of each of `steps` global batches, and the state after them, through `world` ranks."""
    loaders = [
        Loader(
            Numbers(count),
            batch_size=batch,
            micro_batch_size=micro,
            seed=seed,
            rank=r,
            world=world,
            state=state,
            **options,
        )
        for r in range(world)
    ]
    batches = [[row for loader in loaders for row in read(next(loader))] for _ in range(steps)]
    states = [loader.state() for loader in loaders]
    for loader in loaders:
        loader.close()
    assert all(s == states[0] for s in states)
    return batches, json.loads(json.dumps(states[0]))


sizes = st.tuples(st.integers(1, 40), st.integers(1, 24), st.none() | st.integers(1, 9))


@settings(deadline=None)
@given(
    sizes=sizes, worlds=st.tuples(st.integers(1, 7), st.integers(1, 7)), steps=st.integers(1, 6), stop=st.integers(0, 6)
)
def test_any_world_and_any_interruption_give_the_same_samples(sizes, worlds, steps, stop):
    count, batch, micro = sizes
    first, second = (min(world, batch) for world in worlds)
    expected, end = run(count, batch, None, 1, steps)
    stop = min(stop, steps)
    before, state = run(count, batch, micro, first, stop)
    after, resumed_end = run(count, batch, 2, second, steps - stop, state)
    assert before + after == expected
    assert resumed_end == end


@settings(deadline=None)
@given(sizes=sizes, world=st.integers(1, 5), epochs=st.integers(1, 3))
def test_an_epoch_has_every_sample_once(sizes, world, epochs):
    count, batch, micro = sizes
    steps = -(-epochs * count // batch)
    rows = [row for batch_rows in run(count, batch, micro, min(world, batch), steps)[0] for row in batch_rows]
    assert [row[0] for row in rows] == list(range(steps * batch))
    assert [row[1] for row in rows] == list(range(batch)) * steps
    for epoch in range(epochs):
        assert sorted(row[2] for row in rows[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None)
@given(sizes=sizes, world=st.integers(1, 7))
def test_all_ranks_have_micro_batches_of_the_same_shapes(sizes, world):
    count, batch, micro = sizes
    world = min(world, batch)
    shapes, shares = set(), []
    for rank in range(world):
        share = next(Loader(Numbers(count), batch_size=batch, micro_batch_size=micro, seed=0, rank=rank, world=world))
        shapes.add(tuple(tuple(b[name].shape for name in sorted(b)) for b in share.micro_batches))
        shares.append(share)
    assert len(shapes) == 1
    assert max(s.size for s in shares) - min(s.size for s in shares) <= 1
    rows = len(shares[0].micro_batches[0]["index"])
    assert rows <= (micro or batch)
    assert len(shares[0].micro_batches) == -(-max(s.size for s in shares) // (micro or batch))
    for share in shares:
        invalid = sum(int((~b["valid"]).sum()) for b in share.micro_batches)
        assert invalid == rows * len(share.micro_batches) - share.size


def test_another_batch_size_goes_on_at_the_next_sample():
    before, state = run(50, 8, None, 1, 3)
    after, _ = run(50, 5, None, 1, 4, state)
    expected, _ = run(50, 44, None, 1, 1)
    assert [r[::2] for b in before + after for r in b] == [r[::2] for b in expected for r in b]


def test_seeds_and_epochs_have_orders_of_their_own():
    first, second = run(64, 64, None, 1, 2)[0]
    other = run(64, 64, None, 1, 1, seed=4)[0][0]
    orders = [[row[2] for row in rows] for rows in (first, second, other)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


class Renewed(Numbers):
    """Shows what a sample is drawn from."""

    def fetch_anew(self, indices, epochs, seed):
        return {"index": torch.from_numpy(np.stack([indices, epochs, np.full(len(indices), seed)], 1))}


def test_sources_that_draw_anew_are_told_epoch_and_seed():
    def rows(**options):
        loader = Loader(Renewed(5), batch_size=4, seed=9, **options)
        return [tuple(row) for _ in range(4) for row in next(loader).micro_batches[0]["index"].tolist()]

    found = rows()
    plain = [row[2] for rows in run(5, 4, None, 1, 4, seed=9)[0] for row in rows]
    assert found == [(index, counter // 5, 9) for counter, index in enumerate(plain)]
    assert sorted(rows(rank=0, world=2) + rows(rank=1, world=2)) == sorted(found)


def test_state_is_the_given_one_until_a_batch_was_handed_out():
    _, state = run(50, 8, None, 1, 3)
    loader = Loader(Numbers(50), batch_size=8, seed=3, state=state)
    assert loader.state() == state
    assert loader.samples == 24
    next(loader)
    assert loader.state()["samples"] == 32


def test_workers_change_nothing_and_read_ahead_uncounted(quick_workers):
    expected, end = run(30, 7, 2, 1, 9)
    before, state = run(30, 7, 2, 1, 4, workers=2, prefetch=3)
    after, resumed_end = run(30, 7, 2, 1, 5, state)
    assert before + after == expected
    assert resumed_end == end


def test_worker_survives_signals_to_the_group_and_ends_when_closed():
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    before = set(psutil.Process().children(recursive=True))
    with Loader(Numbers(30), batch_size=4, seed=3, workers=1, prefetch=1) as loader:
        next(loader)
        workers = [
            p for p in set(psutil.Process().children(recursive=True)) - before if "spawn_main" in str(p.cmdline())
        ]
        assert len(workers) == 1
        os.kill(workers[0].pid, signal.SIGTERM)
        os.kill(workers[0].pid, signal.SIGINT)
        rows = [read(next(loader)) for _ in range(6)]
    assert [row[0] for batch in rows for row in batch] == list(range(4, 28))
    wait_until_gone([p.pid for p in workers], "the worker outlives its loader")
    assert torch.rand(1) == expected_draw, "the loader drew from torch's global generator"


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_data_reach_the_caller_as_they_are(quick_workers, workers):
    loader = Loader(Failing(30), batch_size=4, seed=3, workers=workers)
    with pytest.raises(DataError) as caught:
        next(loader)
    assert str(caught.value) == "sample 7 is unreadable\nexpected: a readable sample\nto fix: mend it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size of 0"),
        ({"batch_size": -3}, "batch size of -3"),
        ({"batch_size": 4, "micro_batch_size": 0}, "micro-batch size of 0"),
        ({"batch_size": 2, "world": 3}, "2 cannot be spread over 3 workers"),
        ({"batch_size": 2, "state": {"samples": 0, "seed": 2, "length": 9}}, "seed 2"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Loader(Numbers(9), seed=1, **options)


def test_no_samples_and_other_data_are_refused():
    with pytest.raises(DataError, match="no samples"):
        Loader(Numbers(0), batch_size=1, seed=1)
    with pytest.raises(DataError, match="8 samples, but there are 9"):
        Loader(Numbers(9), batch_size=2, seed=1, state={"samples": 0, "seed": 1, "length": 8})


def test_shares_can_be_pickled():
    share = next(Loader(Numbers(9), batch_size=4, seed=1))
    assert read(pickle.loads(pickle.dumps(share))) == read(share)
