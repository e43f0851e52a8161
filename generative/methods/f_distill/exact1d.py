"""The exact case in one dimension: everything that is estimated elsewhere is known here.

Teacher: a mixture of Gaussians. Student: x = mu + s z, z ~ N(0, 1). Diffused by x_t = x + sigma eps both stay what they
are, with variances that grow by sigma^2, so densities, scores and denoised means are closed forms, and divergences and
their gradients are integrals over a line. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.methods.f_distill.divergences import Divergence
from generative.methods.f_distill.losses import distribution_matching

POINTS = 4001
REACH = 14.0
"""Nodes of the integrals, and how many standard deviations they reach: e^(-98) of the density is left out."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians on the line.

    Args:
        weights: float64[M], which add up to 1.
        means: float64[M].
        stds: float64[M].
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def diffused(self, sigma: float) -> Mixture:
        """The density of x + sigma eps."""
        return Mixture(self.weights, self.means, (self.stds.square() + sigma**2).sqrt())

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) of x[N], float64[N]."""
        return self._log_terms(x).logsumexp(1)

    def score(self, x: Tensor) -> Tensor:
        """d log p(x) / dx, float64[N]."""
        terms = self._log_terms(x).softmax(1) * (self.means - x[:, None]) / self.stds.square()
        return terms.sum(1)

    def denoised(self, x_t: Tensor, sigma: float) -> Tensor:
        """E[x | x_t] = x_t + sigma^2 score, where this mixture is of x (Tweedie)."""
        return x_t + sigma**2 * self.diffused(sigma).score(x_t)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Independent draws, float64[number]."""
        which = torch.multinomial(self.weights, number, replacement=True, generator=generator)
        return self.means[which] + self.stds[which] * torch.randn(number, generator=generator, dtype=torch.float64)

    def _log_terms(self, x: Tensor) -> Tensor:
        """log of each weighted component, [N, M]."""
        z = (x[:, None] - self.means) / self.stds
        return self.weights.log() - self.stds.log() - 0.5 * math.log(2 * math.pi) - 0.5 * z.square()


def mixture(weights: list[float], means: list[float], stds: list[float]) -> Mixture:
    """From plain numbers."""
    return Mixture(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, stds)))


TEACHER = mixture([0.5, 0.3, 0.2], [-2.0, 1.0, 3.0], [0.5, 0.4, 0.3])


def student(theta: Tensor) -> Mixture:
    """N(mu, s^2) of theta = (mu, s), differentiable."""
    return Mixture(torch.ones(1, dtype=torch.float64), theta[:1], theta[1:])


def divergence(f: Divergence, teacher: Mixture, theta: Tensor, sigma: float) -> Tensor:
    """D_f(p_sigma || q_sigma) by the trapezoidal rule, differentiable in theta = (mu, s), float64[2]."""
    p, q = teacher.diffused(sigma), student(theta).diffused(sigma)
    x, width = _nodes(p, q)
    log_q = q.log_density(x)
    return (log_q.exp() * f.f_of_log(p.log_density(x) - log_q)).sum() * width


def score_gradient(f: Divergence, teacher: Mixture, theta: Tensor, sigma: float) -> Tensor:
    """-E[h(r) (score_p - score_q) d x_t / d theta], float64[2]: what f-distill descends, integrated over z and eps.

    Given x_t, E[z | x_t] = s (x_t - mu) / (s^2 + sigma^2), so that the integral is over x_t alone.
    """
    theta = theta.detach()
    p, q = teacher.diffused(sigma), student(theta).diffused(sigma)
    x, width = _nodes(p, q)
    log_q = q.log_density(x)
    force = log_q.exp() * f.h_of_log(p.log_density(x) - log_q) * (p.score(x) - q.score(x)) * width
    z = theta[1] * (x - theta[0]) / (theta[1] ** 2 + sigma**2)
    return -torch.stack([force.sum(), (force * z).sum()])


def _nodes(p: Mixture, q: Mixture) -> tuple[Tensor, float]:
    """Places over all of both densities, float64[N], and their distance; they do not move with theta."""
    low = min(float((d.means - REACH * d.stds).min().detach()) for d in (p, q))
    high = max(float((d.means + REACH * d.stds).max().detach()) for d in (p, q))
    return torch.linspace(low, high, POINTS, dtype=torch.float64), (high - low) / (POINTS - 1)


def optimum(
    f: Divergence, teacher: Mixture, sigma: float, start: tuple[float, float] = (0.0, 2.0), steps: int = 100
) -> tuple[Tensor, float]:
    """The nearest minimum of D_f: (mu, s) as float64[2], and its divergence, by L-BFGS on the integral."""
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [theta], max_iter=steps, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def evaluate() -> Tensor:
        search.zero_grad()
        value = divergence(f, teacher, theta, sigma)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(evaluate)  # type: ignore[no-untyped-call]
    found = theta.detach()
    return found, float(divergence(f, teacher, found, sigma))


@dataclass(frozen=True)
class Descent:
    """Stochastic descent from samples: the student (0, 2) at first, Adam, and a rate that falls to 0 as a cosine.

    Args:
        steps: of the student.
        batch: samples of each.
        lr: at first.
        averaged: the last part of the steps, whose mean is the result.
    """

    steps: int = 2000
    batch: int = 2048
    lr: float = 0.03
    averaged: float = 0.25


def noised_student(theta: Tensor, batch: int, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x = mu + s z and x_t = x + sigma eps, float64[batch] each; pairs of opposite noise have less spread."""
    half = torch.randn(2, (batch + 1) // 2, generator=generator, dtype=torch.float64)
    z, eps = torch.cat([half, -half], 1)[:, :batch]
    x = theta[0] + theta[1] * z
    return x, x + sigma * eps


def matching_loss(x: Tensor, x_t: Tensor, h: Tensor, teacher: Mixture, theta: Tensor, sigma: float) -> Tensor:
    """The student's loss of the method with exact estimates of x by both, without the normaliser, which biases this.

    Its gradient is that of D_f times sigma^2, for h of the exact ratio.
    """
    fake = student(theta.detach()).denoised(x_t.detach(), sigma)
    found = teacher.denoised(x_t.detach(), sigma)
    return distribution_matching(x[:, None], found[:, None], fake[:, None], h, normalised=False).mean()


def descend(plan: Descent, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """(mu, s) averaged over the last steps down `loss`, a random function of them, float64[2]."""
    theta = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], betas=(0.9, 0.99))
    total, first = torch.zeros_like(theta), int(plan.steps * (1 - plan.averaged))
    for step in range(plan.steps):
        optimizer.param_groups[0]["lr"] = plan.lr * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        optimizer.zero_grad()
        loss(theta).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step >= first:
            total += theta.detach()
    return total / (plan.steps - first)


def exact_loss(
    f: Divergence, teacher: Mixture, sigma: float, batch: int, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """The student's loss from samples and the exact ratio."""

    def loss(theta: Tensor) -> Tensor:
        x, x_t = noised_student(theta, batch, sigma, generator)
        p, q = teacher.diffused(sigma), student(theta.detach()).diffused(sigma)
        h = f.h_of_log(p.log_density(x_t.detach()) - q.log_density(x_t.detach()))
        return matching_loss(x, x_t, h, teacher, theta, sigma)

    return loss
