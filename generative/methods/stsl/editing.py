"""Editing of (corrupted) images: restore, invert, and draw again under another text with the source's attention.

1. A measurement is restored by STSL first (elsewhere); a clean image is taken as it is.
2. DDIM backwards under the source's text: from a level to the noisier one, z' = a' z0(z, e) + b' e(z', level'), an
   implicit equation that is solved by fixed-point rounds. One round is DDIM inversion; more come nearer to the inverse.
3. DDIM forwards, source (guidance 1) and target (guidance w: e = e() + w (e(target) - e())) side by side, the target
   with controlled attention; after each step one update of the target's z (cross-attention tuning):

       z <- z - grad [ L(y, z) ]             at the first steps (where there is a measurement)
       z <- z - grad [ (nu / d) L_c(D(z0)) ] at the later ones (where there is a contrastive term)

Which features the paper's contrastive term has is not known: it is any callable here, `contrast.patch_contrast` one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.stsl.attention_control import Control
from generative.methods.stsl.attention_hooks import Maps, attention_changed, changing
from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.prior import Prior
from generative.methods.stsl.problem import Problem
from generative.methods.stsl.sampler import update
from generative.methods.stsl.surrogate import Terms

Contrast = Callable[[Tensor], Callable[[Tensor], Tensor]]
"""Source's reconstruction [B, ...] -> (decoded images [B, ...] -> loss [B])."""


@dataclass(frozen=True)
class Edit:
    """How an edit is made; replace and guidance figures as prompt-to-prompt has them (from memory, unverified).

    Args:
        steps: T, of inversion and of drawing.
        rounds: of each inversion step, 1 or more.
        guidance: w of the target.
        cross: share of the steps at which cross-attention is the source's.
        own: the same of self-attention.
        own_pixels: self-attention maps of more pixels stay the target's.
        measured: share of the steps with a measurement gradient (30 of 50).
        terms: of L(y, z).
        contrast: the contrastive term; None: none.
        nu: its weight.
    """

    steps: int = 50
    rounds: int = 4
    guidance: float = 7.5
    cross: float = 0.8
    own: float = 0.4
    own_pixels: int = 1024
    measured: float = 0.6
    terms: Terms = field(default_factory=lambda: Terms(weight=0.3, data_loss="norm", eta=3.0, probe="scaled"))
    contrast: Contrast | None = None
    nu: float = 2.0

    def __post_init__(self) -> None:
        for name in ("cross", "own", "measured"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} of the steps", "a share in 0 .. 1", "correct it")
        if self.rounds < 1 or self.steps < 1:
            raise ConfigError(f"{self.steps} steps, {self.rounds} rounds", "1 or more of both", "correct it")


@dataclass(frozen=True)
class Texts:
    """Embeddings float32[1, L, D] of the source's text, of no text, and of the target's."""

    source: Tensor
    empty: Tensor
    target: Tensor


@dataclass(frozen=True)
class Edited:
    """An edit: images [B, *image]; `noise`: the inversion's end [B, *shape]; `maps`: the target's attention."""

    reconstruction: Tensor
    image: Tensor
    noise: Tensor
    maps: Maps


@torch.no_grad()
def inverted(problem: Problem, z: Tensor, levels: Sequence[Level], rounds: int) -> Tensor:
    """The state at the first level from which deterministic DDIM leads to clean `z` [B, *shape]; T rounds rows each."""
    z = levels[-1].signal * z
    for low, high in pairwise(reversed(levels)):
        guess = z
        for _ in range(rounds):
            e = problem.noise(guess, high)
            guess = high.signal * clean(z, e, low) + high.noise * e
        z = guess
    return z


def edited(
    problem: Problem,
    prior_of: Callable[[Tensor], Prior],
    unet: Any,
    z: Tensor,
    texts: Texts,
    control: Control,
    settings: Edit,
    measured: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Edited:
    """Edit clean latents.

    Args:
        problem: its measurement guides the target; without one any operator and y will do.
        prior_of: embeddings [G, L, D] of G equal groups of rows -> prior.
        unet: the network of these priors, whose attention is changed during controlled steps.
        z: clean [B, *shape].
        texts: embeddings.
        control: of the target's attention.
        settings: how.
        measured: whether the problem's measurement counts.
        progress: told after each step.

    Raises:
        ConfigError: attention that cannot be seen.
    """
    by_source = replace(problem, prior=prior_of(texts.source))
    by_target = replace(problem, prior=prior_of(texts.target))
    by_all = replace(problem, prior=prior_of(torch.cat([texts.source, texts.empty, texts.target])))
    levels = problem.prior.levels(settings.steps)
    first = inverted(by_source, z, levels, settings.rounds)
    source = target = first
    maps = Maps(z.shape[-1])
    told = problem.decode(z)
    extra = None if settings.contrast is None else settings.contrast(told.detach())
    for number, (level, ahead) in enumerate(pairwise(levels)):
        cross, own = number < settings.cross * settings.steps, number < settings.own * settings.steps
        with torch.no_grad(), attention_changed(unet, changing(control, cross, own, settings.own_pixels, maps)):
            of_source, empty, wanted = by_all.noise(torch.cat([source, target, target]), level).chunk(3)
        source = ddim_step(clean(source, of_source, level), of_source, level, ahead, 0.0, None)
        e = empty + settings.guidance * (wanted - empty)
        target = ddim_step(clean(target, e, level), e, level, ahead, 0.0, None)
        terms = _terms(settings, number, measured, extra)
        if terms is not None and ahead.noise > 0:
            target = update(by_target, target, ahead, terms, number)[0]
        progress(number + 1, settings.steps)
    with torch.no_grad():
        return Edited(problem.decode(source), problem.decode(target), first, maps)


def _terms(settings: Edit, number: int, measured: bool, extra: Callable[[Tensor], Tensor] | None) -> Terms | None:
    """What the target's state descends after a step; None: nothing."""
    if number < settings.measured * settings.steps:
        return settings.terms if measured else None
    return None if extra is None else Terms(weight=0.0, eta=0.0, extra=extra, extra_weight=settings.nu)
