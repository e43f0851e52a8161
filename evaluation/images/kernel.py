"""Kernel distance of features: unbiased squared MMD with a cubic kernel (KID, Binkowski et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from evaluation.images.jackknife import left_out, membership
from generative.errors import DataError

ROWS = 1024
"""Rows of a kernel matrix in memory at a time."""


def kernel_distance(first: Tensor, second: Tensor, groups: int = 0) -> Tensor:
    """MMD^2 with k(x, y) = (x.y / D + 1)^3 by U-statistics: unbiased for any N, and below zero about as often as not
    where the distributions are equal.

    All pairs are used. Published figures are means over random subsets of 1000 samples, which have the same expectation
    and a larger error.

    Args:
        first, second: features [N, D] and [M, D] in random order, two or more rows each.
        groups: groups to leave out in turn (`jackknife`), which needs no further kernel values.

    Returns:
        float64[1 + groups]: the distance, and without each group of both sets.

    Raises:
        DataError: fewer than two samples in a set.
    """
    if min(len(first), len(second)) < 2:
        raise DataError(
            f"the kernel distance of {len(first)} and {len(second)} samples is not defined",
            expected="two or more samples in each set",
            remedy="evaluate more images",
        )
    within = _mean_within(first, groups) + _mean_within(second, groups)
    return within - 2 * _mean_between(first, second, groups)


def _mean_within(x: Tensor, groups: int) -> Tensor:
    """Mean kernel value of different samples, of all and without each group."""
    sums, group = _block_sums(x, x, groups), membership(len(x), groups)
    diagonal = (x.double().square().sum(1) / x.shape[1] + 1) ** 3
    sums.diagonal().sub_(torch.zeros(len(sums), dtype=torch.float64).index_add(0, group, diagonal))
    kept, count = _kept(group, groups)
    return torch.einsum("sg,gh,sh->s", kept, sums, kept) / (count * (count - 1))


def _mean_between(x: Tensor, y: Tensor, groups: int) -> Tensor:
    """Mean kernel value of samples of two sets, of all and without each group."""
    sums = _block_sums(x, y, groups)
    kept, count = _kept(membership(len(x), groups), groups)
    _, other = _kept(membership(len(y), groups), groups)
    return torch.einsum("sg,gh,sh->s", kept, sums, kept) / (count * other)


def _kept(group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Which groups take part, float64[1 + G, G or 1], and the samples that do, float64[1 + G]."""
    kept = torch.ones(1 + groups, max(groups, 1), dtype=torch.float64)
    if groups:
        kept[1:].fill_diagonal_(0)
    return kept, (~left_out(group, groups)).sum(1).double()


def _block_sums(x: Tensor, y: Tensor, groups: int) -> Tensor:
    """Sums of kernel values by the groups of both samples, float64[G, G] (one group where there are none)."""
    count = max(groups, 1)
    rows, columns = membership(len(x), groups), membership(len(y), groups)
    y = y.double()
    sums = torch.zeros(count, count, dtype=torch.float64)
    for part, group in zip(torch.split(x, ROWS), torch.split(rows, ROWS), strict=True):
        kernel = (part.double() @ y.T).div_(x.shape[1]).add_(1).pow_(3)
        by_column = torch.zeros(len(part), count, dtype=torch.float64).index_add_(1, columns, kernel)
        sums.index_add_(0, group, by_column)
    return sums
