"""The case in one dimension with a density ratio that is learned, as in the method, by a discriminator.

The scores stay exact, so that what is found differs from `exact1d` by the ratio alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from generative.method import Alone
from generative.methods.f_distill.config import RatioConfig
from generative.methods.f_distill.divergences import Divergence
from generative.methods.f_distill.exact1d import Mixture, matching_loss, noised_student
from generative.methods.f_distill.losses import gan_discriminator
from generative.methods.f_distill.ratio import RatioWeights
from generative.methods.f_distill.toy import perceptron


@dataclass(frozen=True)
class Learning:
    """How the discriminator follows.

    Args:
        width: units of its two hidden layers.
        updates: of it for each of the student.
        warmup: before the first one.
        batch: samples of teacher and student each.
        lr: of Adam.
        ratio: bounds of ratios, and their normalisation over the one time that there is.
    """

    width: int = 48
    updates: int = 2
    warmup: int = 300
    batch: int = 1024
    lr: float = 3e-3
    ratio: RatioConfig = field(default_factory=partial(RatioConfig, lower=1e-3, upper=1e3, bins=1, decay=0.9))


def learned_loss(
    f: Divergence, teacher: Mixture, sigma: float, batch: int, generator: torch.Generator, plan: Learning
) -> Callable[[Tensor], Tensor]:
    """The student's loss from samples and the ratio of a discriminator, which is trained beside it."""
    net = perceptron(1, 1, plan.width, 2, generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=plan.lr, betas=(0.5, 0.99))
    p, weights = teacher.diffused(sigma), RatioWeights(plan.ratio, f, torch.empty(0, dtype=torch.float64))
    state, started = weights.first(), False

    def logit(x_t: Tensor) -> Tensor:
        found: Tensor = net(x_t.float()[:, None])
        return found

    def follow(theta: Tensor) -> None:
        for _ in range(plan.updates if started else plan.warmup):
            _, fake = noised_student(theta.detach(), plan.batch, sigma, generator)
            both = logit(torch.cat([p.sample(plan.batch, generator), fake]))
            optimizer.zero_grad()
            gan_discriminator(both[: plan.batch], both[plan.batch :]).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def loss(theta: Tensor) -> Tensor:
        nonlocal state, started
        follow(theta)
        started = True
        x, x_t = noised_student(theta, batch, sigma, generator)
        one_time, valid = torch.full_like(x_t, sigma).detach(), torch.ones(batch, dtype=torch.bool)
        found = weights(logit(x_t.detach()), one_time, valid, state, Alone())
        state = found.state
        return matching_loss(x, x_t, found.h, teacher, theta, sigma)

    return loss
