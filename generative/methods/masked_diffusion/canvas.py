"""A batch of canvases that is being filled: asks the network about positions, keeps count, and tells an observer.

Shapes: B samples, T positions, M positions asked about, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.methods.masked_diffusion.config import CacheName
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.nets.attention import Recall


@dataclass(frozen=True)
class Step:
    """What an observer sees after each step.

    Args:
        index: step, from 0.
        calls: network evaluations of each sample so far, int64[B] (twice as many under guidance).
        canvas: int64[B, T] after the step (a copy).
        new: bool[B, T], committed in this step.
        masked: bool[B, T], still masked.
    """

    index: int
    calls: Tensor
    canvas: Tensor
    new: Tensor
    masked: Tensor


Observer = Callable[[Step], None]


@dataclass(frozen=True)
class Sampled:
    """Finished canvases.

    Args:
        tokens: int64[B, T].
        calls: network evaluations that each took, int64[B].
        fed: positions that went through the network in them, int64[B]: fewer than calls x T with a cache.
        lengths: int64[B], up to the token that ended the text (included), or T.
    """

    tokens: Tensor
    calls: Tensor
    fed: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Span:
    """Positions start .. stop - 1 of a block, and where the block before it that was visited starts."""

    start: int
    stop: int
    before: int


class Canvas:
    """State of a sampler.

    Args:
        denoiser: the network.
        tokens: int64[B, T] with mask ids where tokens are wanted.
        known: bool[B, T], the prompt that guidance hides; None: all that is not masked at the start.
        cache: what is kept of keys and values between calls within a block.
        eos_id: a generated token that ends its sample; None: there is none.
        observer: told after each step.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        known: Tensor | None = None,
        cache: CacheName = "none",
        eos_id: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.denoiser, self.cache, self.eos_id, self.observer = denoiser, cache, eos_id, observer
        self.tokens = tokens.clone()
        self.wanted = self.tokens == denoiser.mask_id
        self.known = ~self.wanted if known is None else known
        self.calls = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        self.fed = torch.zeros_like(self.calls)
        self._memory = None if cache == "none" else denoiser.memory(*tokens.shape)
        self._fresh = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        self._span = Span(0, tokens.shape[1], 0)

    @property
    def masked(self) -> Tensor:
        return self.tokens == self.denoiser.mask_id

    def enter(self, span: Span) -> None:
        """Go on to a block; what is remembered of a sample is renewed by its first call there."""
        self._span = span
        self._fresh.zero_()

    def predict(self, positions: Tensor) -> Tensor:
        """Logits [M, V] at the positions set in bool[B, T], row by row; only samples that have some are evaluated."""
        asked = positions.any(1)
        parts = [(asked & ~self._fresh, True), (asked & self._fresh, False)]
        found = [(rows.nonzero()[:, 0], first) for rows, first in parts if rows.any()]
        logits = [self._call(members, positions, first) for members, first in found]
        if self._memory is not None:
            self._fresh |= asked
        if len(logits) == 1:
            return logits[0]
        # Back from one call after the other to the order of the samples.
        sample = torch.cat([members.repeat_interleave(positions[members].sum(1)) for members, _ in found])
        return torch.cat(logits)[sample.argsort(stable=True)]

    def _call(self, members: Tensor, positions: Tensor, first: bool) -> Tensor:
        start, stop, extent = self._window(first)
        rows = positions[members, start:stop].flatten().nonzero()[:, 0]
        recall = None
        if self._memory is not None:
            everyone = len(members) == len(self.tokens)
            recall = Recall(self._memory, start, extent, None if everyone else members)
        self.calls[members] += self.denoiser.calls
        self.fed[members] += self.denoiser.calls * (stop - start)
        return self.denoiser(self.tokens[members, start:stop], self.known[members, start:stop], rows, recall)

    def _window(self, first: bool) -> tuple[int, int, int]:
        """First position of a call, the last plus one, and how many positions are attended to."""
        span, T = self._span, self.tokens.shape[1]
        # Under a shift a block's first token is predicted one position earlier.
        start = max(span.start - self.denoiser.form.shift, 0)
        if self.denoiser.form.block_size is not None:
            if self._memory is None:
                return 0, span.stop, span.stop
            return (min(span.before, start) if first else start), span.stop, span.stop
        if self._memory is None or first:
            return 0, T, T
        return start, (T if self.cache == "prefix" else span.stop), T

    def commit(self, index: int, chosen: Tensor, tokens: Tensor) -> None:
        """Write tokens int64[M] at the positions set in `chosen`, end samples that are ended, and tell the observer."""
        self.tokens[chosen] = tokens
        if self.eos_id is not None:
            rest = self.masked & (self.lengths() < self.tokens.shape[1])[:, None]
            self.tokens[rest] = self.eos_id
            chosen = chosen | rest
        if self.observer is not None:
            self.observer(Step(index, self.calls.clone(), self.tokens.clone(), chosen, self.masked))

    def lengths(self) -> Tensor:
        """int64[B]: up to the first generated end of text that has no mask before it, included, or T."""
        T = self.tokens.shape[1]
        if self.eos_id is None:
            return torch.full_like(self.calls, T)
        end = self.wanted & (self.tokens == self.eos_id) & (self.masked.cumsum(1) == 0)
        places = torch.arange(T, device=end.device).expand_as(end)
        return places.masked_fill(~end, T - 1).amin(1) + 1

    def sampled(self) -> Sampled:
        return Sampled(self.tokens, self.calls, self.fed, self.lengths())
