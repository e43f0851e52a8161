"""Count, mean and covariance of features, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import DataError


@dataclass(frozen=True)
class Moments:
    """First and second moments of features.

    Parts are merged by the pairwise update of Chan, Golub and LeVeque (1979), which subtracts no large numbers: the
    result does not depend on how samples were batched or sharded, rounding in float64 apart.

    Args:
        count: samples N.
        mean: float64[D].
        scatter: sum of (x - mean)(x - mean)^T, float64[D, D].
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(features: Tensor) -> Moments:
        """Moments of features [N, D], N at least 1."""
        x = features.detach().double()
        mean = x.mean(0)
        centred = x - mean
        return Moments(len(x), mean, centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """Moments of both parts together."""
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = torch.outer(shift, shift).mul_(self.count * other.count / count)
        return Moments(count, mean, between.add_(self.scatter).add_(other.scatter))

    @property
    def covariance(self) -> Tensor:
        """float64[D, D], divided by N - 1.

        Raises:
            DataError: fewer than two samples.
        """
        if self.count < 2:
            raise DataError(
                f"the covariance of {self.count} sample is not defined",
                expected="two or more samples",
                remedy="evaluate more images",
            )
        return self.scatter / (self.count - 1)

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors that `from_tensors` reads."""
        return {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Moments:
        """What `tensors` gave."""
        return Moments(int(tensors["count"]), tensors["mean"], tensors["scatter"])
