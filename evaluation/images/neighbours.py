"""Distances between samples, and nearest neighbours by group, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 1024
"""Rows of a distance matrix in memory at a time."""

DIRECT = 32
"""Up to so many features distances are summed up directly, without a matrix product."""


def distances(queries: Tensor, points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Euclidean distances [n, M] of runs of queries [N, D] to points [M, D] in float64, with the place of the first.

    With many features they come from a matrix product of centred rows; squares below its rounding error are zero, so
    that equal rows have no distance.
    """
    centre = points.double().mean(0)
    y = points.double() - centre
    squares = y.square().sum(1)
    for start in range(0, len(queries), ROWS):
        x = queries[start : start + ROWS].double() - centre
        if x.shape[1] <= DIRECT:
            yield start, torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            total = x.square().sum(1, keepdim=True) + squares
            squared = torch.addmm(total, x, y.T, alpha=-2)
            rounding = 8 * x.shape[1] ** 0.5 * torch.finfo(torch.float64).eps
            yield start, squared.masked_fill_(squared < rounding * total, 0).sqrt_()


def nearest_by_group(queries: Tensor, points: Tensor, sizes: list[int], k: int, *, exclude_self: bool) -> Tensor:
    """Distances to the k nearest points of each group, ascending, float64[N, G, k]; inf where a group has fewer.

    From them the k nearest of all points, or of all but a group, follow exactly (`kth_distance`).

    Args:
        queries: [N, D].
        points: [M, D], group after group.
        sizes: number of points of each group; they add up to M.
        k: neighbours.
        exclude_self: queries and points are the same rows, and a row is no neighbour of its own.
    """
    found = torch.full((len(queries), len(sizes), k), torch.inf, dtype=torch.float64)
    for start, block in distances(queries, points):
        if exclude_self:
            rows = torch.arange(len(block))
            block[rows, start + rows] = torch.inf
        for group, part in enumerate(torch.split(block, sizes, dim=1)):
            few = min(k, part.shape[1])
            found[start : start + len(block), group, :few] = part.topk(few, dim=1, largest=False).values
    return found


def kth_distance(nearest: Tensor, k: int) -> Tensor:
    """Distance to the k-th nearest of all groups, and of all but each, float64[1 + G, N] (one group: float64[1, N]).

    Args:
        nearest: as `nearest_by_group` gives it.
        k: at most the neighbours that it was asked for.
    """
    groups = nearest.shape[1]
    rows = [nearest.flatten(1).kthvalue(k, dim=1).values]
    for group in range(groups if groups > 1 else 0):
        rest = torch.cat([nearest[:, :group], nearest[:, group + 1 :]], dim=1)
        rows.append(rest.flatten(1).kthvalue(k, dim=1).values)
    return torch.stack(rows)


def containing_balls(queries: Tensor, centres: Tensor, radii: Tensor, *, inclusive: bool) -> Tensor:
    """How many balls hold each query, int64[S, N], for S sets of radii.

    Args:
        queries: [N, D].
        centres: [M, D].
        radii: float64[S, M]; a negative one is no ball.
        inclusive: whether a ball has its surface (`<=` instead of `<`).
    """
    found = torch.empty(len(radii), len(queries), dtype=torch.int64)
    compare = torch.le if inclusive else torch.lt
    for start, block in distances(queries, centres):
        for s, row in enumerate(radii):
            found[s, start : start + len(block)] = compare(block, row).sum(1)
    return found
