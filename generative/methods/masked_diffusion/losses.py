"""The training loss: a weighted cross-entropy on masked tokens, whose expectation bounds -log p(x0).

loss = sum over masked (b, i) of weight_b * CE_bi / (number of tokens), in nats per token (paper, section 2; all B * L
tokens count, as in the released code). Here the sum is returned; the trainer divides it by the global batch's tokens.

Shapes: B samples, T positions, M masked positions of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generative.method import Batch, Context, Mean
from generative.methods.masked_diffusion.blocks import split_blocks
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.documents import (
    documents_of,
    mask_segments_exactly,
    segment_times,
    segments_of,
)
from generative.methods.masked_diffusion.form import PLAIN, NetworkForm
from generative.methods.masked_diffusion.noise import (
    SCHEDULES,
    draw_block_times,
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
        level: fp32[B], masking probability (or the share masked, where counts are exact); [B, T] where blocks differ.
        weight: fp32, like level: weight of each masked token's cross-entropy.
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
    """Masking of a micro-batch by the configured time sampler and schedule, block by block where there are blocks."""
    B, T = len(batch["sample_id"]), batch["tokens"].shape[1] - 1
    uniform = context.streams.uniform("mask", batch["sample_id"], (T,))
    document = documents_of(batch, lengths)
    if document is not None:
        return _mask_documents(config, document, uniform, batch, context, lengths)
    whole = torch.full_like(batch["sample_id"], T) if lengths is None else lengths
    if config.block_size is None:
        return _masking(config, draw_times(config.time_sampler, batch, context), uniform, whole)
    size = config.block_size
    K = -(-T // size)
    t = draw_block_times(config.time_sampler, batch, context, K if config.block_times == "block" else 1).expand(B, K)
    sizes = (T - size * torch.arange(K, device=t.device)).clamp(max=size).expand(B, K)
    blocks = _masking(config, t.flatten(), split_blocks(uniform, size, 1.0), sizes.flatten())
    level, weight = (values.view(B, K).repeat_interleave(size, 1)[:, :T] for values in (blocks.level, blocks.weight))
    return Masking(blocks.mask.view(B, -1)[:, :T], level, weight)


def _mask_documents(
    config: MaskedDiffusionConfig,
    document: Tensor,
    uniform: Tensor,
    batch: Batch,
    context: Context,
    lengths: Tensor | None,
) -> Masking:
    segment = segments_of(document, config.block_size)
    level_of = segment if config.block_times == "block" else segments_of(document, None)
    t = segment_times(config, level_of, batch, context)
    if config.time_sampler == "exact":
        mask, level = mask_segments_exactly(uniform, t, segment)
        masking = Masking(mask, level, 1.0 / level)
    else:
        masking = _masking_at(config, t, uniform)
    if lengths is None:
        return masking
    inside = torch.arange(uniform.shape[1], device=uniform.device) < lengths[:, None]
    return replace(masking, mask=masking.mask & inside)


def _masking(config: MaskedDiffusionConfig, t: Tensor, uniform: Tensor, lengths: Tensor) -> Masking:
    if config.time_sampler == "exact":
        counts = exact_counts(t, lengths)
        level = counts / lengths
        return Masking(mask_exactly(uniform, counts, lengths), level, 1.0 / level)
    return masking_at(config, t, uniform, lengths)


def masking_at(config: MaskedDiffusionConfig, t: Tensor, uniform: Tensor, lengths: Tensor) -> Masking:
    """Independent masks for given times t[B] in [0, 1) and uniforms[B, T]; positions beyond `lengths` stay clear."""
    inside = torch.arange(uniform.shape[1], device=uniform.device) < lengths[:, None]
    masking = _masking_at(config, t, uniform)
    return replace(masking, mask=masking.mask & inside)


def _masking_at(config: MaskedDiffusionConfig, t: Tensor, uniform: Tensor) -> Masking:
    """t is [B], or [B, T] where places differ."""
    schedule = SCHEDULES[config.schedule]
    t = (1.0 - config.epsilon) * t + config.epsilon
    level = schedule.mask_probability(t)
    return Masking(mask_independently(uniform, level), level, schedule.weight(t))


def masked_cross_entropy(
    net: Callable[..., Any],
    ids: Tensor,
    masking: Masking,
    mask_id: int,
    valid: Tensor,
    lengths: Tensor | None = None,
    form: NetworkForm = PLAIN,
    hidden: Tensor | None = None,
    document: Tensor | None = None,
) -> tuple[Tensor, dict[str, Mean]]:
    """Weighted sum of cross-entropies over masked tokens, and what to report of them.

    Args:
        net: the transformer's forward; the head runs on masked positions only.
        ids: int64[B, T], clean tokens.
        masking: which tokens are hidden and how they weigh.
        mask_id: id of the mask token.
        valid: bool[B]; other rows weigh nothing.
        lengths: int64[B], where samples are cut, or None.
        form: blocks and shift.
        hidden: bool[B, T], further tokens that the network does not see, and is not asked for.
        document: int64[B, T], where windows hold several; see `documents_of`.

    Returns:
        The sum (scalar with gradient) and the metrics loss_by_noise [10] and masked_fraction.
    """
    T = ids.shape[1]
    rows = (masking.mask & valid[:, None]).flatten().nonzero()[:, 0]
    unseen = masking.mask if hidden is None else masking.mask | hidden
    clean = ids if hidden is None else ids.masked_fill(hidden, mask_id)
    noisy, targets = ids.masked_fill(unseen, mask_id), ids.flatten()[rows]
    total, nll = form.loss(net, noisy, clean, rows, targets, _at(masking.weight, rows, T), lengths, document)
    return total, _metrics(nll, _at(masking.level, rows, T), valid, T if lengths is None else lengths)


def _at(values: Tensor, rows: Tensor, length: int) -> Tensor:
    """Values [B] or [B, T] at flattened places [M]."""
    return values[rows // length] if values.ndim == 1 else values.flatten()[rows]


def _metrics(nll: Tensor, level: Tensor, valid: Tensor, lengths: Tensor | int) -> dict[str, Mean]:
    bucket = (level * NOISE_BUCKETS).long().clamp(0, NOISE_BUCKETS - 1)
    zeros = nll.new_zeros(NOISE_BUCKETS)
    by_noise = Mean(zeros.index_add(0, bucket, nll), zeros.index_add(0, bucket, torch.ones_like(nll)))
    tokens = (valid * lengths).sum().to(nll.dtype)
    return {"loss_by_noise": by_noise, "masked_fraction": Mean(nll.new_tensor(float(len(nll))), tokens)}
