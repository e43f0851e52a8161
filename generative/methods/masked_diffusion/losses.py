"""The training loss: a weighted cross-entropy on masked tokens, whose expectation bounds -log p(x0).

loss = sum over masked (b, i) of weight_b * CE_bi / (number of tokens), in nats per token (paper, section 2; all B * L
tokens count, as in the released code). Here the sum is returned; the trainer divides it by the global batch's tokens.

Shapes: B samples, T positions, M masked positions of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.method import Batch, Context, Mean
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.noise import (
    SCHEDULES,
    draw_times,
    exact_counts,
    mask_exactly,
    mask_independently,
)

NOISE_BUCKETS = 10


@dataclass(frozen=True)
class Masking:
    """The noise of one micro-batch.

    Args:
        mask: bool[B, T], True where a token is hidden.
        level: fp32[B], masking probability (or the share masked, where counts are exact).
        weight: fp32[B], weight of each masked token's cross-entropy.
    """

    mask: Tensor
    level: Tensor
    weight: Tensor


def draw_lengths(config: MaskedDiffusionConfig, batch: Batch, context: Context) -> Tensor | None:
    """Lengths int64[B] that samples are cut to, or None where all are whole (random-length training, section 5).

    The released code cuts a whole micro-batch at a time; here each sample has a draw of its own, so the loss does not
    depend on how samples are grouped.
    """
    if config.random_length_ratio == 0.0:
        return None
    ids, T = batch["sample_id"], batch["tokens"].shape[1] - 1
    chance, place = context.streams.uniform("length", ids, (2,)).unbind(1)
    drawn = (1 + (place * T).long()).clamp(max=T)
    lengths = torch.where(chance < config.random_length_ratio, drawn, T)
    # Without a mask of keys attention takes its fastest kernel, so whole samples pass none.
    return lengths if bool((lengths < T).any()) else None


def draw_masking(config: MaskedDiffusionConfig, batch: Batch, context: Context, lengths: Tensor | None) -> Masking:
    """Masking of a micro-batch by the configured time sampler and schedule."""
    T = batch["tokens"].shape[1] - 1
    t = draw_times(config.time_sampler, batch, context)
    uniform = context.streams.uniform("mask", batch["sample_id"], (T,))
    whole = torch.full_like(batch["sample_id"], T) if lengths is None else lengths
    if config.time_sampler == "exact":
        counts = exact_counts(t, whole)
        level = counts / whole
        return Masking(mask_exactly(uniform, counts, whole), level, 1.0 / level)
    return masking_at(config, t, uniform, whole)


def masking_at(config: MaskedDiffusionConfig, t: Tensor, uniform: Tensor, lengths: Tensor) -> Masking:
    """Independent masks for given times t[B] in [0, 1) and uniforms[B, T]; positions beyond `lengths` stay clear."""
    schedule = SCHEDULES[config.schedule]
    t = (1.0 - config.epsilon) * t + config.epsilon
    level = schedule.mask_probability(t)
    inside = torch.arange(uniform.shape[1], device=uniform.device) < lengths[:, None]
    return Masking(mask_independently(uniform, level) & inside, level, schedule.weight(t))


def masked_cross_entropy(
    net: Callable[..., Any], ids: Tensor, masking: Masking, mask_id: int, valid: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, dict[str, Mean]]:
    """Weighted sum of cross-entropies over masked tokens, and what to report of them.

    Args:
        net: the transformer's forward; the head runs on masked positions only.
        ids: int64[B, T], clean tokens.
        masking: which tokens are hidden and how they weigh.
        mask_id: id of the mask token.
        valid: bool[B]; other rows weigh nothing.
        lengths: int64[B], where samples are cut, or None.

    Returns:
        The sum (scalar with gradient) and the metrics loss_by_noise [10] and masked_fraction.
    """
    T = ids.shape[1]
    rows = (masking.mask & valid[:, None]).flatten().nonzero()[:, 0]
    sample = rows // T
    noisy = ids.masked_fill(masking.mask, mask_id)
    total, nll = net(noisy, rows, ids.flatten()[rows], masking.weight[sample], lengths)
    return total, _metrics(nll, masking, sample, valid, T if lengths is None else lengths)


def _metrics(nll: Tensor, masking: Masking, sample: Tensor, valid: Tensor, lengths: Tensor | int) -> dict[str, Mean]:
    bucket = (masking.level * NOISE_BUCKETS).long().clamp(0, NOISE_BUCKETS - 1)[sample]
    zeros = nll.new_zeros(NOISE_BUCKETS)
    by_noise = Mean(zeros.index_add(0, bucket, nll), zeros.index_add(0, bucket, torch.ones_like(nll)))
    tokens = (valid * lengths).sum().to(nll.dtype)
    return {"loss_by_noise": by_noise, "masked_fraction": Mean(nll.new_tensor(float(len(nll))), tokens)}
