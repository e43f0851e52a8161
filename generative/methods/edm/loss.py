"""EDM's training objective (Karras et al. 2022, section 5 and table 1).

Shapes: B samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generative.method import Mean
from generative.nets.edm_precond import denoising_weight

LEVELS = 10
"""Equally likely ranges of noise that the loss is reported for."""


def noise_levels(normal: Tensor, mean: float, std: float) -> Tensor:
    """sigma with ln sigma ~ N(mean, std^2) from standard normal numbers float64[B], float64[B]."""
    return (mean + std * normal.double()).exp()


def denoising_loss(denoised: Tensor, clean: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) |D(y + n, sigma) - y|^2 over the mean of all pixels, [B] (eq. 2 with the weight of table 1)."""
    error = (denoised - clean).square().flatten(1).mean(1)
    return denoising_weight(sigma, sigma_data).to(error.dtype) * error


def loss_by_noise(loss: Tensor, normal: Tensor, valid: Tensor) -> Mean:
    """The loss of ten equally likely ranges of noise, from low to high, [10]; `normal`: what drew the levels, [B]."""
    quantile = 0.5 * (1 + torch.erf(normal.double() / math.sqrt(2)))
    place = (quantile * LEVELS).long().clamp(0, LEVELS - 1)
    zeros, weight = loss.new_zeros(LEVELS), valid.to(loss.dtype)
    counted = torch.where(valid, loss.detach(), 0.0)
    return Mean(zeros.index_add(0, place, counted), zeros.index_add(0, place, weight))


def borders(mean: float, std: float) -> Tensor:
    """Noise levels between which the ranges of `loss_by_noise` lie, float64[11].

    The first and the last range have no end; theirs is put where one level in a hundred lies beyond.
    """
    shares = torch.linspace(0, 1, LEVELS + 1, dtype=torch.float64).clamp(0.01, 0.99)
    return noise_levels(math.sqrt(2) * torch.erfinv(2 * shares - 1), mean, std)
