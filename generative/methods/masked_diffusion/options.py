"""Which of several continuations is the most likely: estimates with common random numbers and standard errors.

Options of a question are masked alike (the same levels, the same places counted from the start of the continuation),
so that what the noise does to all of them cancels in differences, which a ranking depends on.

Shapes: R replicates, n options, L tokens of a context with an option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.masked_diffusion.likelihood import EstimatorName, Scorer, estimate
from generative.randomness import Streams


@dataclass(frozen=True)
class OptionScores:
    """Nats of each option given the context, by R independent replicates: float64[n, R]."""

    replicates: Tensor

    @property
    def nats(self) -> Tensor:
        """Estimates, float64[n]."""
        return self.replicates.mean(1)

    @property
    def stderr(self) -> Tensor:
        """Their standard errors, float64[n] (0 where nothing was drawn at random)."""
        return _stderr(self.replicates)

    @property
    def best(self) -> int:
        """The option of the fewest nats; the first among equals."""
        return int(self.nats.argmin())

    @property
    def lead_stderr(self) -> Tensor:
        """Standard errors of each option's nats less the best one's, float64[n]; 0 for the best."""
        return _stderr(self.replicates - self.replicates[self.best])


def _stderr(values: Tensor) -> Tensor:
    spread: Tensor = values.std(1)
    return spread / math.sqrt(values.shape[1])


def score_options(
    score: Scorer,
    context: Tensor,
    options: Sequence[Tensor],
    streams: Streams,
    question: int,
    *,
    draws: int,
    replicates: int = 4,
    estimator: EstimatorName = "exact_count",
    common: bool = True,
) -> OptionScores:
    """Nats of each option given the context, summed over its tokens.

    Args:
        score: the trained network, with or without guidance (the context is the prompt).
        context: int64[P], P >= 0.
        options: int64[L - P] each, of at least one token.
        streams: noise.
        question: number that addresses it.
        draws: network evaluations of each option, shared out over the replicates.
        replicates: independent estimates, at least 2 for a standard error; chain_rule takes one.
        estimator: see `likelihood.estimate`.
        common: the same noise for all options; False: noise of its own for each.

    Raises:
        ConfigError: an option without tokens, or fewer than two replicates, or fewer draws than replicates.
    """
    if any(len(option) == 0 for option in options):
        raise ConfigError("an option without tokens", "at least one token in each", "leave empty options out")
    rows = 1 if estimator == "chain_rule" else replicates
    if estimator != "chain_rule" and not 2 <= replicates <= draws:
        raise ConfigError(
            f"{draws} draws in {replicates} replicates",
            "two or more replicates of at least one draw, for a standard error",
            "raise draws, or take fewer replicates",
        )
    sample_id = question * rows + torch.arange(rows, device=context.device)
    found = []
    for number, option in enumerate(options):
        ids = torch.cat([context, option]).expand(rows, -1)
        target = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) >= len(context)
        own = streams.within("options") if common else streams.within(f"option{number}")
        found.append(estimate(estimator, score, ids, target, own, sample_id, max(1, draws // rows)))
    nats = torch.stack(found)
    return OptionScores(nats.expand(-1, 2) if rows == 1 else nats)
