"""What decides, in each step of a sampler, which masked positions are committed: order policy x count policy.

A rule is asked twice: which positions the network must predict, and, when tokens have been drawn there, which of them
are committed. Both answers depend on a sample's own canvas and noise only.

Shapes: B samples, T positions, M predicted positions (row-major), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from generative.diffusion.categorical import margin, negative_entropy, probability_of
from generative.methods.masked_diffusion.noise import Schedule


class OrderNoise(Protocol):
    """The part of a sampler's noise that rules use; positions are those of the whole canvas."""

    def positions(self, step: int, masked: Tensor) -> Tensor:
        """Uniforms [B, T] that decide which positions are unmasked; used where `masked` bool[B, T] is set."""
        ...


@dataclass(frozen=True)
class Turn:
    """One step of a block.

    Args:
        index: step within the block, from 0.
        step: number that addresses noise: unlike for any other step of the sample, whatever the batch.
        masked: bool[B, T], positions of the block that are masked.
        initial: int64[B], how many they were when the block began.
        noise: uniforms.
    """

    index: int
    step: int
    masked: Tensor
    initial: Tensor
    noise: OrderNoise


class Rule(Protocol):
    """Which positions, and how many."""

    def candidates(self, turn: Turn) -> Tensor:
        """Positions to predict, bool[B, T] within turn.masked; rows without any are not evaluated."""
        ...

    def chosen(self, turn: Turn, candidates: Tensor, logits: Tensor, drawn: Tensor) -> Tensor:
        """Positions to commit, bool[B, T] within candidates, given logits[M, V] and drawn tokens int64[M]."""
        ...


# ---------------------------------------------------------------------- order

Order = Literal["confidence", "margin", "entropy"]

SCORES: dict[Order, Callable[[Tensor, Tensor], Tensor]] = {
    "confidence": probability_of,
    "margin": lambda logits, drawn: margin(logits),
    "entropy": lambda logits, drawn: negative_entropy(logits),
}
"""Order policies: (logits [M, V], drawn tokens [M]) -> float64[M], the greatest first. Probabilities are at temperature
1 without noise. confidence: of the drawn token; margin: greatest less second; entropy: least uncertain."""


# ---------------------------------------------------------------------- count

Counts = Callable[[Turn, Tensor], Tensor]
"""(turn, n) -> how many of the n int64[R] masked positions are committed, int64[R]."""


def unmask_chances(steps: int, schedule: Schedule, last: float = 1e-5, dtype: torch.dtype = torch.float32) -> Tensor:
    """For each step from t to s the chance 1 - p(s)/p(t) that a masked position is unmasked (1 in the last), [steps].

    Times go from 1 to `last` in equal steps: to 1e-5 in fp32 in the paper's code. dLLM's counts, which halves decide,
    come out with times to 0 in float64.
    """
    level = schedule.mask_probability(torch.linspace(1.0, last, steps + 1, dtype=dtype))
    chances = 1.0 - level[1:] / level[:-1]
    chances[-1] = 1.0
    return chances


@dataclass(frozen=True)
class ScheduledCounts:
    """int(n x chance), as released (paper, section 5)."""

    chances: Tensor

    def __call__(self, turn: Turn, n: Tensor) -> Tensor:
        return (n * self.chances[turn.index].to(n.device)).long()


@dataclass(frozen=True)
class RoundedCounts:
    """n x chance to the nearest whole number (dLLM)."""

    chances: Tensor

    def __call__(self, turn: Turn, n: Tensor) -> Tensor:
        return (n * self.chances[turn.index].to(n.device)).round().long()


@dataclass(frozen=True)
class EvenCounts:
    """The same number in each of `steps`, one more in the first where they do not divide (LLaDA)."""

    steps: int

    def __call__(self, turn: Turn, n: Tensor) -> Tensor:
        extra = (turn.index < turn.initial % self.steps).long()
        return (turn.initial // self.steps + extra).minimum(n)


# ---------------------------------------------------------------------- rules


@dataclass(frozen=True)
class Ancestral:
    """Each masked position is committed with the step's chance, independently; the network predicts those alone."""

    chances: Tensor

    def candidates(self, turn: Turn) -> Tensor:
        uniform = turn.noise.positions(turn.step, turn.masked)
        return turn.masked & (uniform < self.chances[turn.index].to(uniform.device))

    def chosen(self, turn: Turn, candidates: Tensor, logits: Tensor, drawn: Tensor) -> Tensor:
        return candidates


@dataclass(frozen=True)
class AtRandom:
    """Positions in random order, `counts` of them in a step. One at a time it is the first-hitting sampler: the process
    in continuous time, from event to event. The masked positions are equally likely to be next, at whatever time, and
    the network is not told the time, so the times themselves are not needed."""

    counts: Counts

    def candidates(self, turn: Turn) -> Tensor:
        uniform = turn.noise.positions(turn.step, turn.masked).double()
        counts = self.counts(turn, turn.masked.sum(1))
        return top(uniform.masked_fill(~turn.masked, -torch.inf), counts) & turn.masked

    def chosen(self, turn: Turn, candidates: Tensor, logits: Tensor, drawn: Tensor) -> Tensor:
        return candidates


def one(turn: Turn, n: Tensor) -> Tensor:
    """One position a step."""
    return n.clamp(max=1)


@dataclass(frozen=True)
class Ranked:
    """The best `counts` positions by an order policy.

    Args:
        counts: how many.
        order: name in `SCORES`.
        temperature: of the order: standard Gumbel noise times this is added to scores, so that positions are drawn
            without replacement with chances in proportion to exp(score / temperature) (Dream). 0: none.
        batch_coupled: count and rank over the whole batch together, as the released code does; a sample's result then
            depends on its neighbours.
    """

    counts: Counts
    order: Order = "confidence"
    temperature: float = 0.0
    batch_coupled: bool = False

    def _rows(self, masked: Tensor) -> Tensor:
        return masked.view(1, -1) if self.batch_coupled else masked

    def candidates(self, turn: Turn) -> Tensor:
        rows = self._rows(turn.masked)
        return (rows & (self.counts(turn, rows.sum(1)) > 0)[:, None]).view_as(turn.masked)

    def chosen(self, turn: Turn, candidates: Tensor, logits: Tensor, drawn: Tensor) -> Tensor:
        score = spread(candidates, SCORES[self.order](logits, drawn))
        if self.temperature > 0.0:
            uniform = turn.noise.positions(turn.step, turn.masked).double()
            score = score - self.temperature * (-uniform.clamp_min(2.0**-60).log()).log()
        counts = self.counts(turn, self._rows(turn.masked).sum(1))
        return top(self._rows(score), counts).view_as(candidates) & candidates


@dataclass(frozen=True)
class Threshold:
    """All positions whose score reaches `level`, and at least the best one (Fast-dLLM)."""

    level: float
    order: Order = "confidence"

    def candidates(self, turn: Turn) -> Tensor:
        return turn.masked

    def chosen(self, turn: Turn, candidates: Tensor, logits: Tensor, drawn: Tensor) -> Tensor:
        score = spread(candidates, SCORES[self.order](logits, drawn))
        return candidates & ((score >= self.level) | top(score, candidates.sum(1).clamp(max=1)))


def spread(places: Tensor, values: Tensor) -> Tensor:
    """Values float64[M] at the places set in bool[B, T], -inf elsewhere."""
    score = torch.full(places.shape, -torch.inf, dtype=torch.float64, device=places.device)
    score[places] = values
    return score


def top(score: Tensor, counts: Tensor) -> Tensor:
    """The `counts` greatest of each row, the leftmost first among equals: bool like score[R, N]."""
    order = score.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(score.shape[1], device=score.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return rank < counts[:, None]
