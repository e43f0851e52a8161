"""What can be asked of a text model, and the answer to a question. All of it travels between processes."""

from __future__ import annotations

from dataclasses import dataclass

from generative.methods.masked_diffusion.likelihood import EstimatorName

CLOSE = 2.0
"""A decision is close where the estimated lead is below so many standard errors of the estimate."""


@dataclass(frozen=True)
class Rules:
    """How a masked model's likelihoods are estimated (an autoregressive one's are exact).

    Args:
        estimator: see `likelihood.estimate`. A continuation of one token is always scored exactly.
        draws: network evaluations of a continuation.
        replicates: independent estimates that they are shared out over, for a standard error.
        guidance: scale w; the context is the prompt.
    """

    estimator: EstimatorName = "exact_count"
    draws: int = 128
    replicates: int = 8
    guidance: float = 0.0


@dataclass(frozen=True)
class Question:
    """Continuations of contexts, [(context, continuation)]; `number` is the document's in its task."""

    task: str
    number: int
    pairs: tuple[tuple[str, str], ...]
    rules: Rules


@dataclass(frozen=True)
class Scored:
    """The answer to a question.

    Args:
        logs: log-likelihood of each continuation in nats (a lower bound by most estimators).
        stderrs: standard errors of these estimates, 0 where they are exact.
        greedy: whether each continuation is what greedy decoding writes; told of single continuations, else False.
        lead: nats by which the best leads the second (0 where there is one); `lead_stderr`: its standard error.
    """

    logs: tuple[float, ...]
    stderrs: tuple[float, ...]
    greedy: tuple[bool, ...]
    lead: float = 0.0
    lead_stderr: float = 0.0

    @property
    def close(self) -> bool:
        """Whether the noise of the estimates could have decided."""
        return len(self.logs) > 1 and self.lead < CLOSE * self.lead_stderr


@dataclass(frozen=True)
class Whole:
    """A text whose likelihood is wanted."""

    task: str
    number: int
    text: str
    rules: Rules


@dataclass(frozen=True)
class Continue:
    """A text to go on with.

    Args:
        task, number: address the noise.
        context: what stands before.
        until: texts that end it; they and what follows are left out.
        tokens: to write at most.
        temperature: of the draws; 0 takes the most probable.
        guidance: scale w of a masked model; None: as its own sampler's settings say.
    """

    task: str
    number: int
    context: str
    until: tuple[str, ...]
    tokens: int
    temperature: float
    guidance: float | None


Job = Question | Whole | Continue
