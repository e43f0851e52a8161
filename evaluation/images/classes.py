"""Metrics of class probabilities alone: Inception Score and I-Variance, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassStatistics:
    """Moments of class probabilities p(y|x) within S splits of the samples.

    Args:
        count: samples of each split, int64[S].
        mean: marginal p(y) of each split, float64[S, K].
        scatter: sum of squared deviations from it, float64[S, K].
        negentropy: sum over samples of sum_y p log p, float64[S].
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor
    negentropy: Tensor

    @staticmethod
    def of(probabilities: Tensor, split: Tensor, splits: int) -> ClassStatistics:
        """Statistics of probabilities [N, K] of samples that belong to splits int64[N], each in 0 .. splits - 1."""
        p = probabilities.detach().double().cpu()
        split = split.cpu()
        count = torch.bincount(split, minlength=splits)
        zeros = p.new_zeros(splits, p.shape[1])
        mean = zeros.index_add(0, split, p) / count.clamp_min(1)[:, None]
        scatter = zeros.index_add(0, split, (p - mean[split]).square())
        return ClassStatistics(count, mean, scatter, p.new_zeros(splits).index_add(0, split, torch.xlogy(p, p).sum(1)))

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Statistics of both parts together (pairwise update, as for `Moments`)."""
        count = self.count + other.count
        share = (other.count.double() / count.clamp_min(1))[:, None]
        shift = other.mean - self.mean
        return ClassStatistics(
            count,
            self.mean + shift * share,
            self.scatter + other.scatter + shift.square() * share * self.count[:, None],
            self.negentropy + other.negentropy,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors that `from_tensors` reads."""
        return dict(vars(self))

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> ClassStatistics:
        """What `tensors` gave."""
        return ClassStatistics(**tensors)


@dataclass(frozen=True)
class OverSplits:
    """A figure computed in each split.

    Args:
        values: float64[S].
    """

    values: Tensor

    @property
    def mean(self) -> float:
        """Mean over the splits: the figure that is reported."""
        return float(self.values.mean())

    @property
    def population_std(self) -> float:
        """Standard deviation over the splits, divided by S (StyleGAN2-ADA, NVlabs)."""
        return float(self.values.std(correction=0))

    @property
    def sample_std(self) -> float:
        """Standard deviation over the splits, divided by S - 1 (StudioGAN, torch)."""
        return float(self.values.std(correction=1))

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean; None for a single split."""
        return self.sample_std / len(self.values) ** 0.5 if len(self.values) > 1 else None


def inception_score(statistics: ClassStatistics) -> OverSplits:
    """exp(mean_x KL(p(y|x) || p(y))) in each split (Salimans et al. 2016); empty splits are left out."""
    some = statistics.count > 0
    marginal = statistics.mean[some]
    conditional = statistics.negentropy[some] / statistics.count[some]
    return OverSplits((conditional - torch.xlogy(marginal, marginal).sum(1)).exp())


def i_variance(statistics: ClassStatistics) -> OverSplits:
    """Mean over classes of the population standard deviation of p(y|x) over samples, in each split.

    As in the released code of MEE; the paper prints another formula that does not give its table.
    """
    some = statistics.count > 0
    return OverSplits((statistics.scatter[some] / statistics.count[some, None]).sqrt().mean(1))


def contiguous_splits(count: int, splits: int) -> Tensor:
    """Split of each of `count` samples in order, as published code cuts them, int64[count]."""
    return torch.arange(count) * splits // count
