"""Does a model of text use what comes after a gap? A middle span scored with both sides, and with the left alone.

Shapes: B windows of a batch, T scored tokens of a window; the source hands out T + 1 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.estimate import Bound, Estimate, mean_estimate
from evaluation.text import protocol_of_windows, score_windows
from generative.data.sources import Source
from generative.errors import DataError
from generative.method import Batch, Collectives
from generative.randomness import Streams

SpanLikelihood = Callable[[Batch, Tensor, Tensor, Streams], Tensor]
"""(batch, visible bool[B, T], span bool[B, T], streams) -> nats of the span given what is visible, float64[B].

Tokens that are neither visible nor in the span are unknown: masked for a masked model, never read by any.
"""


@dataclass(frozen=True)
class Infill:
    """Nats per token of a masked middle span; `gain` = left only - both sides, paired over the windows."""

    both_sides: Estimate
    left_only: Estimate
    gain: Estimate


def middle_span(length: int, tokens: int) -> Tensor:
    """bool[tokens] that is True on the `length` tokens in the middle.

    Raises:
        DataError: the span leaves no token on one of its sides.
    """
    start = (tokens - length) // 2
    if length < 1 or start < 1:
        raise DataError(
            f"an infilling span of {length} tokens in a window of {tokens}",
            expected=f"1 to {tokens - 2} tokens, so that both sides have text",
            remedy="choose a shorter span or a longer sequence",
        )
    places = torch.arange(tokens)
    return (places >= start) & (places < start + length)


def infill_check(
    score: SpanLikelihood,
    source: Source,
    count: int,
    *,
    span: int,
    batch_size: int,
    streams: Streams,
    tokens_per_window: int,
    collectives: Collectives | None = None,
    device: torch.device | str = "cpu",
    protocol: str = "",
    bound: Bound | None = None,
) -> Infill:
    """Does the right side help? Nats of a middle span given both sides, and given the left side only.

    Both are scored on the same windows with the same noise, so the error of their difference is that of the pairs.
    A model that uses what comes after the span has a positive gain.

    Args:
        score: nats of the span given what is visible.
        span: tokens of the span in the middle of the window.
        streams: noise of this evaluation; the two conditions draw the same.
        tokens_per_window: tokens T of a window that masks refer to.
        source, count, batch_size, collectives, device, protocol, bound: as for `evaluate_likelihood`.
    """
    both = infill_score(score, span, tokens_per_window, streams, device)
    nats = score_windows(both, source, count, batch_size=batch_size, collectives=collectives, device=device)
    return infill_estimates(nats, span, tokens_per_window, protocol, bound)


def infill_score(
    score: SpanLikelihood, span: int, tokens_per_window: int, streams: Streams, device: torch.device | str = "cpu"
) -> Callable[[Batch], Tensor]:
    """Nats of the middle span of a window given both sides, and given the left side only: float64[B, 2]."""
    inside = middle_span(span, tokens_per_window)
    left = torch.arange(tokens_per_window) < inside.int().argmax()

    def both(batch: Batch) -> Tensor:
        rows = (len(batch["sample_id"]), tokens_per_window)
        hidden = inside.to(device).expand(rows)
        sides = (~hidden, left.to(device).expand(rows))
        return torch.stack([score(batch, visible, hidden, streams) for visible in sides], dim=1)

    return both


def infill_estimates(
    nats: Tensor, span: int, tokens_per_window: int, protocol: str = "", bound: Bound | None = None
) -> Infill:
    """Estimates from what `infill_score` says of each window, float64[n, 2]."""
    nats = nats / span
    note = protocol_of_windows(protocol, len(nats), tokens_per_window) + f", span of {span} in the middle"

    def estimate(values: Tensor, bound: Bound | None) -> Estimate:
        return mean_estimate(values.numpy(), "nats/token", note, bound)

    return Infill(
        both_sides=estimate(nats[:, 0], bound),
        left_only=estimate(nats[:, 1], bound),
        gain=estimate(nats[:, 1] - nats[:, 0], None),
    )
