"""How much is masked, and what: noise schedules, time samplers, masks.

alpha(t) is the share of tokens that are still visible at time t; each token is masked independently with probability
p = 1 - alpha(t), and the bound on -log p(x0) weighs the cross-entropy of masked tokens with -alpha'(t) / (1 - alpha(t))
(paper, section 2; for the linear schedule p = t and the weight is 1/p).

Shapes: B samples, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.method import Batch, Context
from generative.methods.masked_diffusion.config import TimeSampler
from generative.registry import Registry


@dataclass(frozen=True)
class Schedule:
    """A noise schedule over t in (0, 1].

    Args:
        mask_probability: t -> 1 - alpha(t), rising from about 0 to about 1.
        weight: t -> -alpha'(t) / (1 - alpha(t)), the weight of a masked token's cross-entropy.
    """

    mask_probability: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]


def _linear() -> Schedule:
    return Schedule(lambda t: t, lambda t: 1.0 / t)


def _cosine() -> Schedule:
    """1 - alpha = cos(pi/2 (1 - t)): most of the time is spent at high noise."""
    return Schedule(
        lambda t: torch.cos(0.5 * math.pi * (1.0 - t)),
        lambda t: 0.5 * math.pi * torch.tan(0.5 * math.pi * (1.0 - t)),
    )


def _loglinear(epsilon: float = 1e-3) -> Schedule:
    """MDLM: sigma = -log(1 - (1-eps) t), mask probability 1 - exp(-sigma) = (1-eps) t, weight sigma'/(exp(sigma)-1)."""
    return Schedule(lambda t: (1.0 - epsilon) * t, lambda t: 1.0 / t)


SCHEDULES: Registry[Schedule] = Registry(
    "noise schedule", {"linear": _linear(), "cosine": _cosine(), "loglinear": _loglinear()}
)


def stratified(offset: Tensor, position: Tensor, count: int) -> Tensor:
    """t_j = (u + j/count) mod 1: one time in each of `count` equal parts of [0, 1), each t_j uniform by itself."""
    return (offset + position.to(offset.dtype) / count) % 1.0


def antithetic(uniform: Tensor, epsilon: float = 1e-3) -> Tensor:
    """MDLM's times: t_j = (u_j + j)/n with a u for each stratum, then (1-eps) t + eps. uniform[n] -> t[n]."""
    count = len(uniform)
    t = (uniform / count + torch.arange(count, dtype=uniform.dtype) / count) % 1.0
    return (1.0 - epsilon) * t + epsilon


def draw_times(sampler: TimeSampler, batch: Batch, context: Context) -> Tensor:
    """t[B] in [0, 1), uniform for each sample; "stratified" and "exact" spread them over the whole global batch.

    The draw depends on the sample's id (or its place in the global batch) alone, not on ranks or micro-batches.
    """
    return draw_block_times(sampler, batch, context, 1)[:, 0]


def draw_block_times(sampler: TimeSampler, batch: Batch, context: Context, blocks: int) -> Tensor:
    """t[B, blocks] in [0, 1), each as in `draw_times`; spread times are spread over the blocks of a sample too:
    t = (u + position / global batch + block / blocks) mod 1."""
    if sampler == "iid":
        return context.streams.uniform("time", batch["sample_id"], (blocks,))
    offset = context.streams.shared_uniform("time").to(batch["position"].device)
    t = stratified(offset, batch["position"], context.global_batch)
    return stratified(t[:, None], torch.arange(blocks, device=t.device), blocks)


def exact_counts(t: Tensor, lengths: Tensor) -> Tensor:
    """Uniform t in [0, 1) -> a count uniform on 1 .. length. t[B], lengths[B] -> int64[B]."""
    return (1 + (t * lengths).long()).minimum(lengths)


def mask_independently(uniform_bt: Tensor, probability: Tensor) -> Tensor:
    """Mask each token with its sample's probability [B], or its own [B, T]: bool[B, T]."""
    return uniform_bt < (probability[:, None] if probability.ndim == 1 else probability)


def mask_exactly(uniform_bt: Tensor, counts_b: Tensor, lengths_b: Tensor) -> Tensor:
    """Mask exactly `counts` of the first `lengths` tokens, each subset equally likely: bool[B, T]."""
    places = torch.arange(uniform_bt.shape[1], device=uniform_bt.device)
    keys = uniform_bt.masked_fill(places >= lengths_b[:, None], torch.inf)
    # The rank of each key, with ties broken by place: a tie must not change the count.
    order = keys.argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, places.expand_as(order))
    return rank < counts_b[:, None]
