"""Norm-bounded soft prompts: how large must embeddings be for the concept to come back?

Whoever may set embeddings freely finds the concept at T^-1 E(concept); a bound of their norm makes erasure a question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.erasure.probes import Predict, Probes
from generative.randomness import Streams


@dataclass(frozen=True)
class SoftSettings:
    """Of the search.

    Args:
        steps: of Adam.
        rate: learning rate, in units of the mean norm of the concept's rows.
    """

    steps: int = 40
    rate: float = 0.03


START_NOISE = 0.01
"""Of the second start of a search, in units of the norm of E(concept)."""


@dataclass(frozen=True)
class Found:
    """The best start's result.

    Args:
        states: X, [L, d].
        loss: of it.
        start: number of the start that led there.
    """

    states: Tensor
    loss: float
    start: int


def projected(rows: Tensor, concept: Tensor, rho: float) -> Tensor:
    """Every row j onto |X_j| <= rho |E(concept)_j|; rho may be infinite. Both [L, d]."""
    if math.isinf(rho):
        return rows
    limit = rho * concept.norm(dim=-1, keepdim=True)
    shorter: Tensor = rows * (limit / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
    return shorter


def beside(concept: Tensor, streams: Streams) -> Tensor:
    """E(concept) + small noise, [L, d]."""
    small: Tensor = START_NOISE * concept.norm(dim=-1, keepdim=True) / concept.shape[-1] ** 0.5
    return concept + small * streams.normal("start", torch.tensor([0]), concept.shape)[0]


def soft_prompt(
    edited: Predict, probes: Probes, concept: Tensor, starts: Sequence[Tensor], rho: float, settings: SoftSettings
) -> Found:
    """argmin over X of the probes' loss within the bound; projected after each step, the best of all starts by loss.

    Args:
        edited: the model under attack; differentiable in its states.
        probes: fixed for all starts.
        concept: E(concept), [L, d].
        starts: X to begin with, [L, d] each.
        rho: bound of a row's norm, in units of the concept's row.
        settings: of the search.
    """
    best: Found | None = None
    for number, start in enumerate(starts):
        variable = projected(start, concept, rho).detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([variable], settings.rate * float(concept.norm(dim=-1).mean()))
        for _ in range(settings.steps):
            (gradient,) = torch.autograd.grad(probes.loss(edited, variable), variable)
            variable.grad = gradient
            optimizer.step()
            with torch.no_grad():
                variable.copy_(projected(variable, concept, rho))
        with torch.no_grad():
            loss = float(probes.loss(edited, variable))
        if best is None or loss < best.loss:
            best = Found(variable.detach(), loss, number)
    assert best is not None
    return best
