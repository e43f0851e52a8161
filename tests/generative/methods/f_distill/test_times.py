"""The grid of times, how it is drawn from, and its bins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generative.errors import ConfigError
from generative.methods.f_distill.times import TimeGrid, noised
from generative.randomness import Streams
from tests.generative.methods.f_distill.golden import arrays


def test_grid_of_the_released_codes() -> None:
    golden, grid = arrays("edm_schedule"), TimeGrid()
    torch.testing.assert_close(grid.sigmas, golden["karras1000_f64"], rtol=1e-9, atol=0)
    torch.testing.assert_close(grid.sigmas.float(), golden["karras1000_dmd2_f32"], rtol=1e-5, atol=0)
    assert [grid.first, grid.last] == golden["poly_index_range"].tolist()


def test_forward_process_of_the_released_code() -> None:
    golden = arrays("edm_schedule")
    found = noised(golden["fp_x"], golden["fp_eps"], golden["fp_t"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, golden["fp_out"], rtol=1e-6, atol=1e-7)
    halved = noised(golden["fp_x"], golden["fp_eps"], golden["fp_t"], torch.full((4,), 0.5))
    torch.testing.assert_close(found - halved, golden["fp_x"] / 2, rtol=1e-4, atol=1e-5)


def test_draws_are_uniform_over_the_indices() -> None:
    grid = TimeGrid(size=8, first=2, last=5)
    ids = torch.arange(4000)
    found = grid.draw(Streams(0), ids)
    assert found.dtype == torch.float64
    values, counts = found.unique(return_counts=True)
    assert values.tolist() == grid.sigmas[2:6].tolist()
    assert counts.min() > 900
    assert found[7:9].equal(grid.draw(Streams(0), ids[7:9]))


@pytest.mark.parametrize("bins", [1, 4, 7, 10])
@pytest.mark.parametrize(("first", "last"), [(0, 999), (2, 998), (130, 580)])
def test_quantile_bins_hold_equal_shares_of_what_is_drawn(first: int, last: int, bins: int) -> None:
    grid, count = TimeGrid(first=first, last=last), last - first + 1
    drawn = grid.sigmas[first : last + 1]
    found = torch.bucketize(drawn, grid.quantile_edges(bins), right=True)
    assert found.tolist() == [index * bins // count for index in range(count)]
    shares = found.bincount(minlength=bins)
    assert shares.max() - shares.min() <= 1
    # float32's rounding of a time changes nothing.
    assert torch.bucketize(drawn.float().double(), grid.quantile_edges(bins), right=True).equal(found)


def test_no_more_bins_than_times() -> None:
    grid = TimeGrid(size=5, first=1, last=4)
    found = torch.bucketize(grid.sigmas[1:], grid.quantile_edges(10), right=True)
    assert found.tolist() == [0, 1, 2, 3]


def test_linear_bins_are_those_of_the_released_code() -> None:
    grid = TimeGrid()
    t = torch.from_numpy(np.random.default_rng(0).uniform(0.002, 80, 1000))
    width = (80 - 0.002) / 10
    wanted = ((t - 0.002) / width).floor().clamp(0, 9).long()
    assert torch.bucketize(t, grid.linear_edges(10), right=True).equal(wanted)
    shares = torch.bucketize(grid.sigmas, grid.linear_edges(10), right=True).bincount() / 1000
    assert shares[0] == pytest.approx(0.64, abs=0.01)  # why quantiles are the default


@pytest.mark.parametrize(
    ("grid", "bins", "linear", "ends"),
    [
        (TimeGrid(), 10, False, (2, 998)),
        (TimeGrid(), 10, True, (2, 998)),
        (TimeGrid(first=130, last=580), 10, True, (0, 999)),  # most bins of equal width lie beyond what is drawn
        (TimeGrid(first=7, last=7), 10, False, (0, 999)),
        (TimeGrid(size=4, first=0, last=3, table=(0.1, 0.2, 0.4, 0.9)), 9, True, (0, 3)),
    ],
)
def test_borders_of_all_bins_ascend_around_the_inner_ones(
    grid: TimeGrid, bins: int, linear: bool, ends: tuple[int, int]
) -> None:
    edges = grid.linear_edges(bins) if linear else grid.quantile_edges(bins)
    found = grid.borders(edges)
    assert found[1:-1].equal(edges)
    assert found[[0, -1]].equal(grid.sigmas[list(ends)])
    assert bool((found.diff() > 0).all())


def test_ranges_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="sigma_min=1"):
        TimeGrid(sigma_min=1.0, sigma_max=0.5)
    with pytest.raises(ConfigError, match="indices 2 to 998 of a grid of 10"):
        TimeGrid(size=10)
