"""A bounded sample of features that does not depend on how the images were sharded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generative.data.order import permute
from generative.errors import DataError

IDS = 2**62
"""Sample ids are 0 .. IDS - 1."""


def ranks_of(ids: Tensor, seed: int) -> Tensor:
    """A keyed permutation of sample ids, int64[N]: what a reservoir is ordered by.

    Raises:
        DataError: an id outside 0 .. 2^62 - 1.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < IDS:
        raise DataError(
            f"sample ids from {int(ids.min())} to {int(ids.max())}",
            expected="ids of 0 .. 2^62 - 1",
            remedy="number the images from 0",
        )
    return torch.from_numpy(permute(ids.cpu().numpy().astype(np.int64), IDS, seed, epoch=0))


@dataclass(frozen=True)
class Reservoir:
    """The features of the `size` samples whose ids come first under a keyed permutation (bottom-k sampling).

    The same samples are kept however the data are sharded and in whatever order they come. Rows are in the order of the
    permutation, so that any run of them is a random sample too.

    Args:
        size: most rows that are kept.
        seed: key of the permutation.
        ids: sample ids, int64[n].
        features: their features, [n, D].
    """

    size: int
    seed: int
    ids: Tensor
    features: Tensor

    @staticmethod
    def of(features: Tensor, ids: Tensor, size: int, seed: int = 0) -> Reservoir:
        """The reservoir of one part: features [N, D] of samples int64[N].

        Raises:
            DataError: a sample id comes twice, or is out of range.
        """
        return _lowest(size, seed, ids.detach().cpu(), features.detach().cpu())

    def merge(self, other: Reservoir) -> Reservoir:
        """The reservoir of both parts together.

        Raises:
            DataError: a sample is in both, or they were made with another size or seed.
        """
        if (self.size, self.seed) != (other.size, other.seed):
            raise DataError(
                f"reservoirs of size {self.size} and {other.size}, seeds {self.seed} and {other.seed}",
                expected="parts that were scored with the same settings",
                remedy="score all parts again with one setting",
            )
        ids, features = other.ids, other.features
        if len(self.ids) == self.size:  # most later samples stay outside: leave what is kept where it is
            bound = ranks_of(self.ids[-1:], self.seed)
            inside = ranks_of(ids, self.seed) <= bound
            if not inside.any():
                return self
            ids, features = ids[inside], features[inside]
        return _lowest(self.size, self.seed, torch.cat([self.ids, ids]), torch.cat([self.features, features]))

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors that `from_tensors` reads."""
        return {"size": torch.tensor([self.size, self.seed]), "ids": self.ids, "features": self.features}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Reservoir:
        """What `tensors` gave."""
        size, seed = tensors["size"].tolist()
        return Reservoir(size, seed, tensors["ids"], tensors["features"])


def _lowest(size: int, seed: int, ids: Tensor, features: Tensor) -> Reservoir:
    """The rows with the lowest ranks, in their order."""
    ranks, order = ranks_of(ids, seed).sort()
    if len(ranks) > 1 and bool((ranks[1:] == ranks[:-1]).any()):
        twice = int(ids[order][1:][ranks[1:] == ranks[:-1]][0])
        raise DataError(
            f"sample id {twice} comes twice",
            expected="every image with an id of its own, scored once",
            remedy="number the images through over all parts, and merge each part once",
        )
    order = order[:size]
    return Reservoir(size, seed, ids[order], features[order])
