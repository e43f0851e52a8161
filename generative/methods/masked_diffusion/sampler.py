"""Samplers: from a canvas with mask tokens to text (paper, section 5; released `diff_sample`).

A canvas is int64[B, T]; mask ids may stand anywhere in it (generation, continuation and infilling are the same). Tokens
that are not masked never change. What happens to a sample depends on its own tokens and noise, not on the batch that it
is in. The network is called only in steps that commit something: it is not told the time, so an unchanged canvas would
give an unchanged prediction.

Shapes: B samples, T positions, M masked or committed positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from generative.diffusion.categorical import gumbel_scores, inverse_cdf, probability_of
from generative.errors import ConfigError
from generative.methods.masked_diffusion.config import SamplingConfig
from generative.methods.masked_diffusion.denoiser import Denoiser
from generative.methods.masked_diffusion.noise import SCHEDULES, Schedule
from generative.randomness import Streams


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
    """Finished canvases int64[B, T] and the network evaluations that each took, int64[B]."""

    tokens: Tensor
    calls: Tensor


class Noise(Protocol):
    """Where a sampler's randomness comes from. Positions are those of the whole canvas, whichever are still masked."""

    def positions(self, step: int, masked: Tensor) -> Tensor:
        """Uniforms [B, T] that decide which positions are unmasked; used where `masked` bool[B, T] is set."""
        ...

    def tokens(self, step: int, logits: Tensor, chosen: Tensor, temperature: float) -> Tensor:
        """A token int64[M] for each position set in `chosen` bool[B, T], in row-major order of logits[M, V]."""
        ...


@dataclass(frozen=True)
class StreamNoise:
    """Noise addressed by (sample id, step, position).

    Args:
        streams: its step is not used: a sampler's own steps are counted.
        sample_id: int64[B].
        length: T.
        token_noise: inverse_cdf: one uniform a token; gumbel: V of them.
    """

    streams: Streams
    sample_id: Tensor
    length: int
    token_noise: Literal["inverse_cdf", "gumbel"] = "inverse_cdf"

    def positions(self, step: int, masked: Tensor) -> Tensor:
        """See `Noise`."""
        return self.streams.at(step).uniform("unmask", self.sample_id, (self.length,), torch.float64)

    def tokens(self, step: int, logits: Tensor, chosen: Tensor, temperature: float) -> Tensor:
        """See `Noise`."""
        if temperature == 0.0:
            return logits.argmax(-1)
        streams = self.streams.at(step)
        if self.token_noise == "inverse_cdf":
            uniform = streams.uniform("token", self.sample_id, (self.length,), torch.float64)
            return inverse_cdf(logits, uniform[chosen], temperature)
        shape = (self.length, logits.shape[-1])
        uniform = streams.uniform("gumbel", self.sample_id, shape, torch.float64)
        return gumbel_scores(logits, uniform[chosen], temperature).argmax(-1)


class _Canvas:
    """A canvas being filled: asks the network about some positions and counts how often."""

    def __init__(self, denoiser: Denoiser, canvas: Tensor, known: Tensor | None, observer: Observer | None) -> None:
        self.denoiser, self.observer = denoiser, observer
        self.tokens = canvas.clone()
        self.known = self.tokens != denoiser.mask_id if known is None else known
        self.calls = torch.zeros(len(canvas), dtype=torch.int64, device=canvas.device)

    @property
    def masked(self) -> Tensor:
        return self.tokens == self.denoiser.mask_id

    def predict(self, positions: Tensor) -> Tensor:
        """Logits at the positions set in bool[B, T], row by row; only samples that have some are evaluated."""
        active = positions.any(1).nonzero()[:, 0]
        self.calls[active] += self.denoiser.calls
        rows = positions[active].flatten().nonzero()[:, 0]
        return self.denoiser(self.tokens[active], self.known[active], rows)

    def commit(self, index: int, chosen: Tensor, tokens: Tensor) -> None:
        self.tokens[chosen] = tokens
        if self.observer is not None:
            self.observer(Step(index, self.calls.clone(), self.tokens.clone(), chosen, self.masked))


def _unmask_chances(steps: int, schedule: Schedule) -> Iterator[Tensor]:
    """For each step from t to s the chance 1 - p(s)/p(t) that a masked position is unmasked (1 in the last), fp32[]."""
    level = schedule.mask_probability(torch.linspace(1.0, 1e-5, steps + 1))
    for step in range(steps - 1):
        yield 1.0 - level[step + 1] / level[step]
    yield torch.ones(())


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    canvas: Tensor,
    noise: Noise,
    *,
    steps: int,
    temperature: float = 1.0,
    schedule: Schedule = SCHEDULES["linear"],
    known: Tensor | None = None,
    observer: Observer | None = None,
) -> Sampled:
    """Reverse process in `steps` steps: each masked position is unmasked with its chance, independently.

    Which positions are unmasked does not depend on the prediction, so the head runs on those only.

    Args:
        denoiser: the trained network.
        canvas: int64[B, T] with mask ids where tokens are wanted.
        noise: uniforms.
        steps: at least 1.
        temperature: of the token draws.
        schedule: sets the times at which positions are unmasked.
        known: bool[B, T], the prompt that guidance hides; None: all that is not masked at the start.
        observer: called after each step.
    """
    state = _Canvas(denoiser, canvas, known, observer)
    for step, chance in enumerate(_unmask_chances(steps, schedule)):
        masked = state.masked
        chosen = masked & (noise.positions(step, masked) < chance.to(canvas.device))
        tokens = state.tokens.new_empty(0)
        if chosen.any():
            tokens = noise.tokens(step, state.predict(chosen), chosen, temperature)
        state.commit(step, chosen, tokens)
    return Sampled(state.tokens, state.calls)


@torch.no_grad()
def confidence(
    denoiser: Denoiser,
    canvas: Tensor,
    noise: Noise,
    *,
    steps: int,
    temperature: float = 0.0,
    schedule: Schedule = SCHEDULES["linear"],
    known: Tensor | None = None,
    observer: Observer | None = None,
    batch_coupled: bool = False,
) -> Sampled:
    """MaskGIT-style: each step commits the most confident int(masked * chance) predictions; all in the last step.

    Confidence is the probability of the drawn token at temperature 1. `batch_coupled` counts and ranks over the whole
    batch together, as the released code does; a sample's result then depends on its neighbours. Other arguments: see
    `ancestral`.
    """
    state = _Canvas(denoiser, canvas, known, observer)
    for step, chance in enumerate(_unmask_chances(steps, schedule)):
        masked = state.masked
        ranked = masked.view(1, -1) if batch_coupled else masked
        counts = (ranked.sum(1) * chance.to(canvas.device)).long()
        if not counts.any():
            state.commit(step, torch.zeros_like(masked), state.tokens.new_empty(0))
            continue
        candidates = (ranked & (counts > 0)[:, None]).view_as(masked)
        logits = state.predict(candidates)
        drawn = noise.tokens(step, logits, candidates, temperature)
        score = torch.full(masked.shape, -torch.inf, dtype=torch.float64, device=canvas.device)
        score[candidates] = probability_of(logits, drawn)
        chosen = _top(score.view_as(ranked), counts).view_as(masked)
        state.commit(step, chosen, drawn[chosen[candidates]])
    return Sampled(state.tokens, state.calls)


def _top(score: Tensor, counts: Tensor) -> Tensor:
    """The `counts` greatest of each row, the leftmost first among equals: bool like score[R, N]."""
    order = score.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(score.shape[1], device=score.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return rank < counts[:, None]


def draw(
    settings: SamplingConfig,
    denoiser: Denoiser,
    canvas: Tensor,
    sample_id: Tensor,
    streams: Streams,
    schedule: Schedule = SCHEDULES["linear"],
    observer: Observer | None = None,
) -> Sampled:
    """Fill a canvas int64[B, T] by the configured sampler; noise by sample_id int64[B]."""
    if len(canvas) != len(sample_id):
        raise ConfigError(
            f"{len(canvas)} canvases but {len(sample_id)} sample ids",
            "one sample id a canvas",
            "give condition['canvas'] and condition['sample_id'] the same number of rows",
        )
    noise = StreamNoise(streams, sample_id, canvas.shape[1], settings.token_noise)
    sample = ancestral if settings.name == "ancestral" else confidence
    return sample(
        denoiser,
        canvas,
        noise,
        steps=settings.steps,
        temperature=settings.temperature,
        schedule=schedule,
        observer=observer,
    )
