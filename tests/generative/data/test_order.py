"""The keyed permutation: a bijection for every size, different in every epoch, without order left in it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.data.order import Order, permute


@given(n=st.integers(1, 3000), seed=st.integers(-(2**70), 2**70), epoch=st.integers(-5, 10**12))
def test_every_index_comes_once(n, seed, epoch):
    assert sorted(permute(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


@given(n=st.integers(1, 2**62), at=st.integers(0, 2**62), seed=st.integers(0, 99))
def test_large_sizes_stay_in_range_and_distinct(n, at, seed):
    indices = np.unique(np.minimum(np.arange(64, dtype=np.int64) + at % n, n - 1))
    images = permute(indices, n, seed, 0)
    assert images.min() >= 0
    assert images.max() < n
    assert len(set(images.tolist())) == len(indices)


@given(n=st.integers(2, 500), seed=st.integers(0, 9), data=st.data())
def test_the_image_of_an_index_does_not_depend_on_its_company(n, seed, data):
    chosen = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8)))
    assert (permute(chosen, n, seed, 3) == permute(np.arange(n), n, seed, 3)[chosen]).all()


def test_all_orders_of_four_are_about_equally_likely():
    trials = 6000
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(trials):
        order = tuple(permute(np.arange(4), 4, seed, 0).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    chi_squared = sum((c - trials / 24) ** 2 / (trials / 24) for c in counts.values())
    assert chi_squared < 60  # 23 degrees of freedom: exceeded by chance with probability 4e-5


@pytest.mark.parametrize("n", [1000, 4096, 50_000])
def test_epochs_and_neighbours_are_uncorrelated(n):
    first, second = permute(np.arange(n), n, 1, 0), permute(np.arange(n), n, 1, 1)
    for a, b in ((first, np.arange(n)), (first, second), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(n)
    assert abs((np.diff(first) > 0).mean() - 0.5) < 4.5 * 0.29 / np.sqrt(n)  # an ascent has variance 1/12 here


@given(n=st.integers(1, 9000), start=st.integers(0, 30_000), count=st.integers(1, 300))
def test_order_follows_the_epochs(n, start, count):
    counters = np.arange(start, start + count)
    expected = [int(permute(np.array([g % n]), n, 5, g // n)[0]) for g in counters.tolist()[:20]]
    assert Order(n, 5)[counters][:20].tolist() == expected


def test_order_forgets_no_block_when_it_jumps_about():
    order = Order(100, 0)
    counters = np.random.default_rng(0).integers(0, 10**6, 200)
    expected = np.concatenate([Order(100, 0)[counters[i : i + 1]] for i in range(200)])
    assert (order[counters] == expected).all()
