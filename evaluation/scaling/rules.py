"""Rules for batch, learning rate, warm-up and widths, as functions of size and length. Options, never hidden defaults.

Each says whose it is; none was fitted here. Batches in sequences or tokens as named, learning rates for AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.scaling.lines import Line, fit_line
from generative.errors import DataError


@dataclass(frozen=True)
class Recipe:
    """What to train with.

    Args:
        batch: sequences in a step.
        learning_rate: peak.
        weight_decay: None where the rule says nothing.
        beta2: of AdamW; None where the rule says nothing.
        rule: whose, in a few words for the report.
    """

    batch: float
    learning_rate: float
    weight_decay: float | None
    beta2: float | None
    rule: str


def porian(N: float) -> Recipe:
    """Porian et al. 2024: batch 160 (N / 108e6)^(2/3) sequences of 2,048 tokens, rate 0.0047 (N / 108e6)^(-1/3).

    Args:
        N: parameters of matrices and output head.
    """
    ratio = N / 108e6
    batch = 160 * ratio ** (2 / 3)
    return Recipe(batch, 0.0047 * ratio ** (-1 / 3), None, 0.99 if batch < 128 else 0.95, "Porian et al. 2024")


def nanochat(
    D: float, *, D_ref: float, learning_rate: float, weight_decay: float, length: int, B_ref: int = 2**19
) -> Recipe:
    """nanochat: batch 2^19 (D / D_ref)^0.383 tokens to the next power of two, and what follows for rate and decay.

    Args:
        D: tokens of the run.
        D_ref: tokens of the reference (depth 12) where `learning_rate` and `weight_decay` were tuned.
        learning_rate: at the reference; scales by sqrt(B / B_ref).
        weight_decay: at the reference; scales by sqrt(B / B_ref) D_ref / D.
        length: tokens in a sequence.
        B_ref: batch of the reference, tokens.
    """
    batch = 2 ** round(math.log2(B_ref * (D / D_ref) ** 0.383))
    root = math.sqrt(batch / B_ref)
    return Recipe(batch / length, learning_rate * root, weight_decay * root * D_ref / D, None, "nanochat")


def nanochat_width(depth: int) -> int:
    """Depth is the only dial: d = 64 depth."""
    return 64 * depth


def nanochat_tokens(params_with_head: float, ratio: float = 12.0) -> float:
    """Tokens of a run: ratio x (matrices and head)."""
    return ratio * params_with_head


def marin(width: int, tokens: float, length: int, steps: int = 2**16) -> Recipe:
    """marin: batch so that there are about 2^16 steps, to the next power of two; rate 0.33 / (width sqrt(batch)).

    Args:
        width: hidden size.
        tokens: of the run.
        length: tokens in a sequence.
        steps: aimed at.
    """
    batch = 2 ** max(0, math.ceil(math.log2(tokens / (length * steps)) - 1e-9))
    return Recipe(float(batch), 0.33 / (width * math.sqrt(batch)), None, None, "marin")


def steps_for(C: float, flops_per_token: float, batch: float, length: int) -> int:
    """Steps that spend C, to the nearest: C / (FLOPs a token x batch x T), at least 1.

    The achieved C is then within half a step of the target: below 1 % from 50 steps on.
    """
    return max(1, round(C / (flops_per_token * batch * length)))


def warmup_steps(N: float, steps: int, batch: float, length: int, most: float = 0.2) -> int:
    """Warm-up of about N tokens (Porian et al. 2024), at most a share of the run: a long one wrecks small budgets."""
    return max(1, min(round(N / (batch * length)), int(most * steps)))


MATRICES = ("blocks.*.attention.*", "blocks.*.feed_forward.*", "head.*")
"""Parameters of the transformer that muP slows down with width."""


def mup_rates(width: int, base_width: int) -> dict[str, float]:
    """muP for Adam (Yang et al. 2022, Table 8: unverified) as `train.optimizer.rates`: 1/m on matrices, m = d / d0.

    Embedding and gains keep the rate, and the embedding has the initial weights of the base (`base_width` of the
    network). The factor 1/m on logits is taken into the head: steps of Adam do not depend on the scale of gradients,
    so that a rate of 1/m is the same thing, and the head starts at zero. Attention's 1 / head_width is a constant
    where all heads are equally wide, which is asked for.
    """
    return {} if width == base_width else dict.fromkeys(MATRICES, base_width / width)


def learning_rate_law(N: Sequence[float], best: Sequence[float]) -> Line:
    """LR ~ N^-p through the best rates of sweeps at two or three small sizes; to be checked again at a large one.

    Raises:
        DataError: fewer than two different sizes.
    """
    if len(set(N)) < 2:
        raise DataError(
            f"{len(set(N))} sizes determine no rule", expected="two sizes or more", remedy="sweep at another size"
        )
    return fit_line(np.asarray(N, dtype=np.float64), np.asarray(best, dtype=np.float64))


@dataclass(frozen=True)
class CriticalBatch:
    """Gradient noise (McCandlish et al. 2018: unverified).

    Args:
        gradient: |G|^2 of the true gradient.
        noise: tr(Sigma) of one sample's.
    """

    gradient: float
    noise: float

    @property
    def batch(self) -> float:
        """B_simple = tr(Sigma) / |G|^2, in samples; inf where the gradient is lost in noise."""
        return self.noise / self.gradient if self.gradient > 0 else math.inf

    def compute_overhead(self, batch: float) -> float:
        """C / C_min = 1 + B / B_crit."""
        return 1 + batch / self.batch

    def step_overhead(self, batch: float) -> float:
        """S / S_min = 1 + B_crit / B."""
        return 1 + self.batch / batch


def critical_batch(small: int, small_norm2: float, big: int, big_norm2: float) -> CriticalBatch:
    """Unbiased |G|^2 and tr(Sigma) from mean squared gradient norms at two batch sizes (one rank's, and all ranks').

    Raises:
        DataError: the sizes do not differ.
    """
    if small >= big:
        raise DataError(
            f"batch sizes {small} and {big} tell no noise",
            expected="a small and a larger batch",
            remedy="take the norms of one rank's gradient and of the mean over ranks",
        )
    gradient = (big * big_norm2 - small * small_norm2) / (big - small)
    return CriticalBatch(gradient, (small_norm2 - big_norm2) / (1 / small - 1 / big))
