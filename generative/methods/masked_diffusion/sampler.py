"""Samplers: from a canvas with mask tokens to text (paper, section 5; LLaDA, Dream, Fast-dLLM, BD3LM).

A sampler is an order policy x a count policy (`policies`) x a token policy (`TokenPolicy`) x guidance (`Denoiser`),
block by block where there are blocks, with or without a memory of keys and values (`canvas`).

A canvas is int64[B, T]; mask ids may stand anywhere in it (generation, continuation and infilling are the same). Tokens
that are not masked never change. What happens to a sample depends on its own tokens and noise, not on the batch that it
is in. The network is called only in steps that commit something: it is not told the time, so an unchanged canvas would
give an unchanged prediction.

Shapes: B samples, T positions, M masked or committed positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from generative.diffusion.categorical import gumbel_scores, inverse_cdf, restrict
from generative.methods.masked_diffusion.canvas import Canvas, Sampled, Span
from generative.methods.masked_diffusion.policies import Rule, Turn
from generative.randomness import Streams


class Noise(Protocol):
    """Where a sampler's randomness comes from. Positions are those of the whole canvas, whichever are still masked."""

    def positions(self, step: int, masked: Tensor) -> Tensor:
        """See `policies.OrderNoise`."""
        ...

    def tokens(self, step: int, logits: Tensor, chosen: Tensor) -> Tensor:
        """A token int64[M] for each position set in `chosen` bool[B, T], in row-major order of logits[M, V]."""
        ...


@dataclass(frozen=True)
class TokenPolicy:
    """How tokens are drawn from logits.

    Args:
        temperature: of the softmax; 0 takes the most probable token.
        top_k: only the most probable are drawn; None: all.
        top_p: only the nucleus is drawn; 1: all.
        noise: inverse_cdf: one uniform a token; gumbel: V of them.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    noise: Literal["inverse_cdf", "gumbel"] = "inverse_cdf"


@dataclass(frozen=True)
class StreamNoise:
    """Noise addressed by (sample id, step, position).

    Args:
        streams: its step is not used: a sampler's own steps are counted.
        sample_id: int64[B].
        length: T.
        policy: of the tokens.
    """

    streams: Streams
    sample_id: Tensor
    length: int
    policy: TokenPolicy = TokenPolicy()

    def positions(self, step: int, masked: Tensor) -> Tensor:
        """See `Noise`."""
        return self.streams.at(step).uniform("unmask", self.sample_id, (self.length,), torch.float64)

    def tokens(self, step: int, logits: Tensor, chosen: Tensor) -> Tensor:
        """See `Noise`."""
        policy = self.policy
        if policy.temperature == 0.0:
            return logits.argmax(-1)
        logits = restrict(logits, policy.top_k, policy.top_p, policy.temperature)
        streams = self.streams.at(step)
        if policy.noise == "inverse_cdf":
            uniform = streams.uniform("token", self.sample_id, (self.length,), torch.float64)
            return inverse_cdf(logits, uniform[chosen], policy.temperature)
        shape = (self.length, logits.shape[-1])
        uniform = streams.uniform("gumbel", self.sample_id, shape, torch.float64)
        return gumbel_scores(logits, uniform[chosen], policy.temperature).argmax(-1)


@dataclass(frozen=True)
class Block:
    """A part of the canvas that is filled before the next.

    Args:
        places: bool[T], where masks are filled.
        start, stop: first position that is computed anew with the block, and the last plus one.
        rule: what is committed, step by step.
        steps: at most; a block that is full ends earlier.
        first: number that its first step's noise is addressed by.
    """

    places: Tensor
    start: int
    stop: int
    rule: Rule
    steps: int
    first: int = 0


@torch.no_grad()
def fill(canvas: Canvas, noise: Noise, blocks: Sequence[Block]) -> Sampled:
    """Fill one block after the other; a block that has no masks left ends."""
    index, before = 0, 0
    for block in blocks:
        canvas.enter(Span(block.start, block.stop, before))
        before = block.start
        initial = (canvas.masked & block.places).sum(1)
        for turn in range(block.steps):
            masked = canvas.masked & block.places
            if not masked.any():
                break
            _step(canvas, noise, block.rule, Turn(turn, block.first + turn, masked, initial, noise), index)
            index += 1
    return canvas.sampled()


def _step(canvas: Canvas, noise: Noise, rule: Rule, turn: Turn, index: int) -> None:
    candidates = rule.candidates(turn)
    if not candidates.any():
        canvas.commit(index, candidates, canvas.tokens.new_empty(0))
        return
    logits = canvas.predict(candidates)
    drawn = noise.tokens(turn.step, logits, candidates)
    chosen = rule.chosen(turn, candidates, logits, drawn)
    canvas.commit(index, chosen, drawn[chosen[candidates]])
