"""The way of all samplers from noise to data: one step after the other, each image by itself.

An image whose state is no longer finite stops there; the others go on. Steps are functions, so that a sampler is a
step with its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.stsl.levels import Level, clean
from generative.methods.stsl.problem import Cost, Problem

Init = Literal["q_sample", "ddim_inversion", "noise"]
INITS: tuple[Init, ...] = get_args(Init)

Step = Callable[[Problem, Tensor, int, Level, Level], tuple[Tensor, Tensor]]
"""(problem, z, number, level, target) -> (z at the target, residual ratio float64[B])."""


@dataclass(frozen=True)
class Restored:
    """What a sampler found.

    Args:
        image: [B, *image]; NaN where an image failed.
        z: [B, *shape].
        residual: |y - A x| / (sigma sqrt(m)) at each step, float64[steps, B]; NaN after a failure.
        failed: bool[B]: states (or images of the last) that were not finite.
        cost: counts over all images.
    """

    image: Tensor
    z: Tensor
    residual: Tensor
    failed: Tensor
    cost: Cost


def walk(problem: Problem, z: Tensor, levels: Sequence[Level], step: Step) -> Restored:
    """Take `step` from level to level; `z`: state at the first."""
    alive = z.flatten(1).isfinite().all(1)
    told: list[Tensor] = []
    for number, (level, target) in enumerate(pairwise(levels)):
        ratio = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
        if bool(alive.any()):
            ahead, found = step(problem.rows(alive), z[alive], number, level, target)
            z, ratio = z.clone(), ratio.masked_scatter(alive, found.detach())
            z[alive] = ahead.detach()
            alive = alive & z.flatten(1).isfinite().all(1)
        told.append(ratio)
    image = torch.full((len(z), *problem.prior.image), torch.nan, dtype=z.dtype, device=z.device)
    if bool(alive.any()):
        with torch.no_grad():
            image[alive] = problem.decode(z[alive])
    alive = alive & image.flatten(1).isfinite().all(1)
    return Restored(image, z, torch.stack(told), ~alive, problem.cost)


@torch.no_grad()
def start(problem: Problem, levels: Sequence[Level], init: Init) -> Tensor:
    """The state at the first level.

    q_sample: a E(A^+ y) + b n (noise alone where no image can be read off y); ddim_inversion: DDIM run backwards from
    E(A^+ y), one row a step; noise: b n.

    Raises:
        ConfigError: an unknown way, or an inversion of what gives no image.
    """
    if init not in INITS:
        raise ConfigError(f"init={init!r}", f"one of {', '.join(INITS)}", "correct it")
    first = levels[0]
    drawn = problem.draws("init", 0, problem.prior.shape).to(problem.y)
    # a prior's scale at the noisiest level is sqrt(a^2 var + b^2); data of unit scale at most: b n, as all samplers do
    guess = None if init == "noise" else problem.operator.back(problem.y)
    if guess is None:
        if init == "ddim_inversion":
            raise ConfigError(
                f"init=ddim_inversion with {problem.operator.name}, off which no image can be read",
                "an operator with a pseudo-inverse",
                "use init=noise",
            )
        return first.noise * drawn
    z = problem.encode(guess.clamp(-1, 1) if len(problem.prior.image) == 3 else guess)
    if init == "q_sample":
        return first.signal * z + first.noise * drawn
    return invert(problem, z, levels)


def invert(problem: Problem, z: Tensor, levels: Sequence[Level]) -> Tensor:
    """DDIM backwards, from clean z to the first level; e is taken at the noisier level of each pair."""
    z = levels[-1].signal * z
    for low, high in pairwise(reversed(levels)):
        e = problem.noise(z, high)
        z = high.signal * clean(z, e, low) + high.noise * e
    return z
