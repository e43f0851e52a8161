"""UCE's third use: a concept that shows its attributes (of a profession: women, men) in wanted shares.

The target of a concept c is c + sum_j alpha_j a_j, a vector on the side of the text: the edit is a transform like any
other. Each round edits the original weights anew, for all concepts at once, and looks at the shares in fresh images.
The rule for alpha is partly from memory of the paper (unverified).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.rece.config import StepConfig
from generative.methods.rece.erase import State
from generative.methods.rece.preserve import Kept
from generative.methods.rece.tokens import Pairs, Prompt, Variant, aligned

StateT = TypeVar("StateT", bound=State)

RATE = 0.1
"""alpha is raised by so many times what a share lacks."""
TOLERANCE = 0.05
"""A concept is done when every share is this near, or nearer."""
ROUNDING = 1e-9
"""Of shares: 11 of 20 images are 5 points from a half, and a little more as floating-point numbers."""
ROUNDS = 30


@dataclass(frozen=True)
class Debiased:
    """A concept whose images are to show attributes in given shares.

    Args:
        concept: c.
        attributes: a_1 ... a_p.
        wanted: shares that add up to 1; (): equal ones.
    """

    concept: Prompt
    attributes: Sequence[Prompt]
    wanted: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shares = self.shares
        if len(self.attributes) < 2 or len(shares) != len(self.attributes) or not _add_up(shares):
            raise ConfigError(
                f"{self.concept.text!r} with {len(self.attributes)} attributes and the shares {list(self.wanted)}",
                expected="two or more attributes, and as many shares from 0 on that add up to 1",
                remedy="correct the attributes or shares, or leave the shares out for equal ones",
            )

    @property
    def shares(self) -> Tensor:
        """Wanted, float64[p]."""
        count = len(self.attributes)
        return torch.tensor(self.wanted or [1 / max(count, 1)] * count, dtype=torch.float64)

    def pairs(self, alpha: Tensor, variant: Variant) -> Pairs:
        """c to c + sum_j alpha_j a_j; alpha float64[p]."""
        old, *others = aligned(variant, [self.concept, *self.attributes])
        return Pairs(old, old + torch.einsum("j,jnd->nd", alpha, torch.stack(others)))


def _add_up(shares: Tensor) -> bool:
    return bool((shares >= 0).all()) and abs(float(shares.sum()) - 1) <= 1e-6


def raised(alpha: Tensor, found: Tensor, wanted: Tensor, rate: float = RATE) -> Tensor:
    """alpha + rate (wanted - found share): more of what is rare, less of what is frequent."""
    return alpha + rate * (wanted - found)


def debias(
    state: StateT,
    concepts: Sequence[Debiased],
    kept: Kept,
    step: StepConfig,
    shares: Callable[[StateT, Sequence[int]], Sequence[Tensor]],
    rounds: int = ROUNDS,
) -> tuple[StateT, list[Tensor]]:
    """Edit until the shares are as wanted, or the rounds are over.

    Args:
        state: the weights before.
        concepts: all of them are edited together.
        kept: what is to stay.
        step: constants.
        shares: draws images from weights for the concepts of these numbers, and tells each one's shares, float64[p].
        rounds: at most.

    Returns:
        the edited weights, and the last alpha of each concept.
    """
    alphas = [torch.zeros(len(one.attributes), dtype=torch.float64) for one in concepts]
    open_ones = list(range(len(concepts)))
    now = state
    for _ in range(rounds):
        found = dict(zip(open_ones, shares(now, open_ones), strict=True))
        open_ones = [i for i in open_ones if float((found[i] - concepts[i].shares).abs().max()) > TOLERANCE + ROUNDING]
        if not open_ones:
            break
        for i in open_ones:
            alphas[i] = raised(alphas[i], found[i], concepts[i].shares)
        pairs = [one.pairs(alpha, step.variant) for one, alpha in zip(concepts, alphas, strict=True)]
        now = state.edited(pairs, kept.weighed(step), step)
    return now, alphas
