"""Noise depends on its address and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generative.randomness import SHARED, Streams, stream_key

ids = st.lists(st.integers(0, 2**40), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(ids, st.integers(0, 2**31), st.sampled_from(["uniform", "normal"]), st.integers(1, 9))
def test_rows_depend_on_their_own_address(samples, step, kind, length):
    """Any grouping, order and repetition of samples gives each the same numbers."""
    streams = Streams(3, step)
    together = getattr(streams, kind)("x", torch.tensor(samples), (length,))
    for row, sample in zip(together, samples, strict=True):
        assert torch.equal(row, getattr(streams, kind)("x", [sample], (length,))[0])


def test_longer_draws_begin_with_shorter_ones():
    streams = Streams(0, 5)
    assert torch.equal(streams.uniform("x", [7], (20,))[0, :8], streams.uniform("x", [7], (8,))[0])


@pytest.mark.parametrize(
    "other", [Streams(1, 0), Streams(0, 1), Streams(0, 0, "scope/"), Streams(0).within("a")], ids=str
)
def test_each_part_of_the_address_matters(other):
    one, two = Streams(0, 0).uniform("x", [1, 2], (4,)), other.uniform("x", [1, 2], (4,))
    assert not (one == two).any()
    assert not (one[0] == one[1]).any()
    assert not (one == Streams(0, 0).uniform("y", [1, 2], (4,))).any()


def test_philox_address_is_the_documented_one():
    """Key: hash of seed and name; counter: (draw, sample, step, 0). A reader in another language can follow it."""
    bits = np.random.Philox(key=stream_key(11, "noise"), counter=np.array([0, 42, 9, 0], dtype=np.uint64))
    expected = np.random.Generator(bits).random(5)
    drawn = Streams(11, 9).uniform("noise", [42], (5,), torch.float64)[0]
    np.testing.assert_array_equal(drawn.numpy(), expected)


def test_distributions():
    """Means, variances and neighbour correlations of 400,000 draws within five standard errors."""
    n = 400_000
    uniform = Streams(0).uniform("x", range(400), (1000,), torch.float64)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    normal = Streams(0).normal("x", range(400), (1000,), torch.float64)
    assert abs(normal.mean()) < 5 / n**0.5
    assert abs(normal.var() - 1) < 5 * (2 / n) ** 0.5
    neighbours = (normal[1:] * normal[:-1]).mean()
    assert abs(neighbours) < 5 / n**0.5


def test_integers_cover_their_range_evenly():
    drawn = Streams(0).integers("x", range(200), 7, (500,))
    counts = torch.bincount(drawn.flatten(), minlength=7)
    assert len(counts) == 7
    expected = 100_000 / 7
    assert (((counts - expected) ** 2) / expected).sum() < 30  # chi-square, 6 degrees: far beyond 0.9999


def test_shared_noise_is_the_same_for_all():
    assert torch.equal(Streams(0).shared_uniform("u", (3,)), Streams(0).uniform("u", [SHARED], (3,))[0])
    assert Streams(0).shared_uniform("u").shape == ()


def test_noise_lies_where_the_ids_lie():
    assert Streams(0).uniform("x", torch.tensor([1]), (2, 3)).shape == (1, 2, 3)
    assert Streams(0).uniform("x", []).shape == (0,)
