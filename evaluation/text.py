"""Likelihood of held-out text, for any method that can score a window of tokens.

Windows are picked evenly over the held-out source and shared out over the ranks. Their noise is addressed by the index
of the window in the source, so a figure is the same for any batch size and any number of ranks (floating point apart).

Shapes: B windows of a batch, T scored tokens of a window; the source hands out T + 1 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.estimate import Bound, Estimate, mean_estimate
from generative.data.sources import Source
from generative.errors import DataError
from generative.method import Alone, Batch, Collectives
from generative.randomness import Streams

Likelihood = Callable[[Batch, Streams], Tensor]
"""Negative log-likelihood (or a bound of it) of each window of a batch in nats, float64[B]."""

Progress = Callable[[int, int], None]
"""Called with the windows that are done, and all."""


@dataclass(frozen=True)
class TextLikelihood:
    """One measurement in two units."""

    nats_per_token: Estimate
    bits_per_byte: Estimate


def evenly_spaced(length: int, count: int) -> Tensor:
    """`count` (at most `length`) different indices spread evenly over range(length), ascending, int64[count].

    Raises:
        DataError: there is nothing to pick from, or nothing was asked for.
    """
    if length < 1 or count < 1:
        raise DataError(
            f"cannot evaluate {count} windows of a held-out source of {length}",
            expected="at least one window on both sides",
            remedy="give more held-out text (data.validation_fraction) or ask for at least one window",
        )
    count = min(count, length)
    return (torch.arange(count, dtype=torch.int64) * length + length // 2) // count


def score_windows(
    score: Callable[[Batch], Tensor],
    source: Source,
    count: int,
    *,
    batch_size: int,
    collectives: Collectives | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Tensor:
    """What `score` says of `count` windows spread over the source, in their order, on every rank.

    Every rank calls `score` equally often with batches of one shape (a sharded network needs that); rows that only fill
    up a batch have valid=False and are dropped.

    Args:
        score: float64[B] or float64[B, K] of a batch that holds tokens, sample_id (index of the window in the source),
            position (place among the picked windows) and valid, on `device`.
        source: held-out windows.
        count: windows to pick; all of them where there are fewer.
        batch_size: rows of a batch, at least 1.
        collectives: sums and gathers over ranks; a single process where None.
        device: where batches are put.
        progress: told the windows of this rank that are done, and all.

    Raises:
        DataError: a batch size below 1.
    """
    if batch_size < 1:
        raise DataError(
            f"the batch size of the evaluation is {batch_size}",
            expected="a whole number of at least 1",
            remedy="raise evaluate.batch_size",
        )
    ranks = collectives or Alone()
    indices = evenly_spaced(len(source), count)
    share = range(len(indices) * ranks.rank // ranks.world, len(indices) * (ranks.rank + 1) // ranks.world)
    longest = -(-len(indices) // ranks.world)
    scores = []
    with torch.no_grad():
        for position, valid in _batches(share, longest, min(batch_size, longest)):
            scores.append(_scored(score, source, indices, position, valid, device))
            if progress is not None:
                progress(sum(map(len, scores)), len(share))
    return ranks.gather(torch.cat(scores)).cpu().double()


def score_part(
    score: Callable[[Batch], Tensor],
    source: Source,
    count: int,
    part: range,
    *,
    size: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """What `score` says of a part of the windows that `score_windows` picks, in one batch of `size` rows.

    Args:
        score, source, count, device: as for `score_windows`.
        part: places among the picked windows, at most `size` of them.
        size: rows of the batch; those that only fill it up are dropped.
    """
    ((position, valid),) = _batches(part, size, size)
    with torch.no_grad():
        indices = evenly_spaced(len(source), count)
        return _scored(score, source, indices, position, valid, device).cpu().double()


def _scored(
    score: Callable[[Batch], Tensor],
    source: Source,
    indices: Tensor,
    position: Tensor,
    valid: Tensor,
    device: torch.device | str,
) -> Tensor:
    """The scores of the valid rows of one batch."""
    sample_id = indices[position]
    batch = {**source.fetch(sample_id.numpy()), "sample_id": sample_id, "position": position, "valid": valid}
    scored = score({name: tensor.to(device) for name, tensor in batch.items()})
    return scored[valid.to(scored.device)]


def _batches(share: range, longest: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and validity of each batch of a rank, as many batches as the rank with the longest share has."""
    for start in range(0, longest, size):
        offset = torch.arange(start, start + size)
        valid = offset < len(share)
        yield torch.where(valid, share.start + offset, min(share.start, max(share.stop - 1, 0))), valid


def per_token(
    window_nats: Tensor,
    tokens_per_window: int | Tensor,
    bytes_per_token: float,
    protocol: str,
    bound: Bound | None = None,
) -> TextLikelihood:
    """Estimates from nats per window float64[n]; the standard error is over windows.

    bits/byte = nats/token / (ln 2 * bytes_per_token); bytes_per_token is taken as known, without an error of its own.
    Where windows have different numbers of tokens [n], it is all nats over all tokens, with the error of a ratio.
    """
    counts = torch.as_tensor(tokens_per_window, dtype=torch.float64).expand_as(window_nats)
    ratio = window_nats.sum() / counts.sum()
    each = ratio + (window_nats - ratio * counts) / counts.mean()
    nats = mean_estimate(each.numpy(), "nats/token", protocol, bound)
    return TextLikelihood(nats, nats.scaled(1 / (math.log(2) * bytes_per_token), "bits/byte"))


def evaluate_likelihood(
    likelihood: Likelihood,
    source: Source,
    count: int,
    *,
    batch_size: int,
    streams: Streams,
    tokens_per_window: int,
    bytes_per_token: float,
    collectives: Collectives | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    protocol: str = "",
    bound: Bound | None = None,
) -> TextLikelihood:
    """Negative log-likelihood of held-out windows (see `score_windows` for how they are picked and shared out).

    Args:
        likelihood: nats of each window, noise drawn from the streams that it is given, by sample_id.
        source, count, batch_size, collectives, device, progress: see `score_windows`.
        streams: noise of this evaluation.
        tokens_per_window: tokens that `likelihood` scores in a window.
        bytes_per_token: mean bytes of a held-out token.
        protocol: said in front of the number of windows and tokens.
        bound: "upper" for an evidence bound, None for an exact likelihood.
    """
    nats = score_windows(
        lambda batch: likelihood(batch, streams),
        source,
        count,
        batch_size=batch_size,
        collectives=collectives,
        device=device,
        progress=progress,
    )
    note = protocol_of_windows(protocol, len(nats), tokens_per_window)
    return per_token(nats, tokens_per_window, bytes_per_token, note, bound)


def protocol_of_windows(protocol: str, windows: int, tokens: int) -> str:
    """How something was measured, with what it was measured on."""
    return ", ".join(filter(None, [protocol, f"{windows:,} held-out windows of {tokens:,} tokens"]))
