"""How far two sets of features cover each other: precision, recall, density and coverage from nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.images.jackknife import left_out, membership
from evaluation.images.neighbours import containing_balls, kth_distance, nearest_by_group
from generative.errors import DataError


@dataclass(frozen=True)
class Manifold:
    """Four figures, each of all samples and without each group: float64[1 + G].

    Args:
        precision: share of generated samples inside any ball of a reference sample.
        recall: share of reference samples inside any ball of a generated sample.
        density: mean number of reference balls that hold a generated sample, over k.
        coverage: share of reference samples whose ball holds a generated sample.
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


def manifold(reference: Tensor, generated: Tensor, k: int, *, inclusive: bool, groups: int = 0) -> Manifold:
    """Precision, recall, density and coverage with balls that reach to the k-th nearest sample of the same set.

    A sample is not a neighbour of its own. `inclusive=False` compares with `<`, as Naeem et al. 2020 (PRDC, k = 5);
    True with `<=`, as Kynkaanniemi et al. 2019 (improved precision and recall, k = 3).

    Args:
        reference, generated: features [N, D] and [M, D] in random order.
        k: neighbours, fewer than the samples of either set.
        inclusive: which comparison.
        groups: groups to leave out in turn (`jackknife`).

    Raises:
        DataError: too few samples for k.
    """
    _check(k, len(reference), len(generated))
    real, fake = (_Side.of(x, groups) for x in (reference, generated))
    real_radii, fake_radii = real.radii(k), fake.radii(k)
    holding = containing_balls(generated, reference, real_radii, inclusive=inclusive)
    held = containing_balls(reference, generated, fake_radii, inclusive=inclusive)
    nearest = kth_distance(nearest_by_group(reference, generated, fake.sizes, 1, exclude_self=False), 1)
    covered = nearest <= real_radii if inclusive else nearest < real_radii
    return Manifold(
        precision=fake.mean(holding > 0),
        recall=real.mean(held > 0),
        density=fake.mean(holding) / k,
        coverage=real.mean(covered),
    )


@dataclass(frozen=True)
class _Side:
    """One set, with the rows that take part when each group is left out, bool[1 + G, N]."""

    features: Tensor
    kept: Tensor
    sizes: list[int]

    @staticmethod
    def of(features: Tensor, groups: int) -> _Side:
        group = membership(len(features), groups)
        return _Side(features, ~left_out(group, groups), torch.bincount(group).tolist())

    def radii(self, k: int) -> Tensor:
        """Radius of each sample's ball, float64[1 + G, N]; -1 for those that are left out."""
        nearest = nearest_by_group(self.features, self.features, self.sizes, k, exclude_self=True)
        return torch.where(self.kept, kth_distance(nearest, k), -1.0)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of [1 + G, N] over the rows that take part, float64[1 + G]."""
        return (values * self.kept).sum(1).double() / self.kept.sum(1)


def _check(k: int, *counts: int) -> None:
    if k < 1 or k >= min(counts):
        raise DataError(
            f"{k} nearest neighbours in sets of {' and '.join(f'{n:,}' for n in counts)} samples",
            expected=f"1 to {max(min(counts) - 1, 1)} neighbours",
            remedy="evaluate more images, or lower the number of neighbours",
        )
