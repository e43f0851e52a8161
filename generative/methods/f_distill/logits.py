"""Logits of several heads as one, as density ratios, and how well they order real above fake.

Shapes: B samples, K heads, n bins of times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generative.method import Mean
from generative.methods.f_distill.config import RatioConfig

LARGEST_LOGIT = 10.0


def joint_logit(logits: Tensor, config: RatioConfig) -> Tensor:
    """log of the geometric or arithmetic mean over heads of their ratios, within +-10, float64[B], of logits [B, K]."""
    wide_logits = logits.detach().double()
    if config.heads == "geometric":
        logit = wide_logits.mean(1)
    else:
        logit = wide_logits.logsumexp(1) - math.log(logits.shape[1])
    return logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def density_ratio(logit: Tensor, config: RatioConfig) -> Tensor:
    """r = exp(l) within the bounds, float64[B], of `joint_logit`."""
    return logit.exp().clamp(config.lower, config.upper)


@torch.no_grad()
def auc_by_time(
    real_logits: Tensor, fake_logits: Tensor, real_t: Tensor, fake_t: Tensor, edges: Tensor, valid: Tensor
) -> Mean:
    """How well the discriminator orders real above fake samples in each bin of times: float64[n] as a mean over pairs.

    1/2: it sees no difference; 1: it never errs (then ratios are at their bounds and the weights tell little). Pairs
    are those within this rank's batch.

    Args:
        real_logits: [B, K] of noised real samples.
        fake_logits: [B, K] of noised samples of the student.
        real_t: float64[B], times of the real ones.
        fake_t: float64[B], times of the student's.
        edges: float64[n - 1], inner borders of the bins.
        valid: bool[B], of both.
    """
    n, edges = len(edges) + 1, edges.to(real_t.device)
    bins = [torch.bucketize(t.double(), edges, right=True) for t in (real_t, fake_t)]
    difference = real_logits.detach().double().mean(1)[:, None] - fake_logits.detach().double().mean(1)
    paired = (bins[0][:, None] == bins[1]) & valid[:, None] & valid
    wins = (difference.sign() + 1) / 2 * paired
    return Mean(by_bin(wins.sum(1), bins[0], n), by_bin(paired.double().sum(1), bins[0], n))


def by_bin(values: Tensor, bins: Tensor, n: int) -> Tensor:
    """Sums of float64[B] over the samples of each bin, float64[n]."""
    return torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, bins, values.double())
