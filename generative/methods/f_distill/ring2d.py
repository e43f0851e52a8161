"""A ring of modes in the plane: the teacher is a closed form; student, fake score and discriminator are learned.

The modes have unequal weights, 1 : 2 : ... : M, so that a divergence which seeks modes has something to leave out. The
step is the method's, loss by loss; only the networks are small, and one process trains them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.method import Alone
from generative.methods.f_distill.config import RatioConfig
from generative.methods.f_distill.divergences import DIVERGENCES, Divergence
from generative.methods.f_distill.losses import (
    denoising,
    distribution_matching,
    edm_weight,
    gan_discriminator,
    gan_generator,
)
from generative.methods.f_distill.ratio import RatioWeights
from generative.methods.f_distill.times import TimeGrid, noised
from generative.methods.f_distill.toy import perceptron


@dataclass(frozen=True)
class Ring:
    """Gaussians of one width on a circle, mode i with weight i + 1.

    Args:
        modes: M.
        radius: of the circle.
        std: of each mode.
    """

    modes: int = 8
    radius: float = 4.0
    std: float = 0.3

    @property
    def means(self) -> Tensor:
        """float64[M, 2]."""
        angles = torch.arange(self.modes, dtype=torch.float64) * (2 * math.pi / self.modes)
        return self.radius * torch.stack([angles.cos(), angles.sin()], 1)

    @property
    def weights(self) -> Tensor:
        """float64[M], which add up to 1."""
        raw = torch.arange(1, self.modes + 1, dtype=torch.float64)
        return raw / raw.sum()

    @property
    def scale(self) -> float:
        """Standard deviation of a coordinate, about."""
        return math.sqrt(self.radius**2 / 2 + self.std**2)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Independent points, float32[number, 2]."""
        which = torch.multinomial(self.weights, number, replacement=True, generator=generator)
        spread = self.std * torch.randn(number, 2, generator=generator)
        return self.means.float()[which] + spread

    def denoised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x | x_t] of the teacher: each mode's own, by how probable the mode is. x_t[B, 2], t float64[B]."""
        x, variance = x_t.double(), t.double()[:, None].square() + self.std**2
        away = self.means - x[:, None]
        probable = (self.weights.log() - away.square().sum(2) / (2 * variance)).softmax(1)
        own = x[:, None] + away * (t.double()[:, None].square() / variance)[:, :, None]
        return (probable[:, :, None] * own).sum(1).to(x_t.dtype)


@dataclass(frozen=True)
class Plan:
    """How a student of the ring is trained.

    Args:
        steps: updates of the student.
        critic_updates: of fake score and discriminator for each.
        batch: samples of an update.
        width: of three hidden layers of each network.
        lr: of Adam for the student, falling to 0 as a cosine; the critics have half of it, constant.
        gan_weight: lambda_G.
    """

    steps: int = 1500
    critic_updates: int = 3
    batch: int = 256
    width: int = 128
    lr: float = 1e-3
    gan_weight: float = 1e-2


LAYERS = 3


class RingStudent:
    """Student, fake score and discriminator, and the updates of the three.

    Args:
        ring: the teacher.
        f: the divergence.
        plan: sizes.
        seed: of weights and noise.
    """

    def __init__(self, ring: Ring, f: Divergence, plan: Plan, seed: int) -> None:
        self.ring, self.plan = ring, plan
        self.generator = torch.Generator().manual_seed(seed)
        self.student = perceptron(2, 2, plan.width, LAYERS, self.generator)
        self.raw_fake = perceptron(3, 2, plan.width, LAYERS, self.generator)
        self.judge = perceptron(3, 1, plan.width, LAYERS, self.generator)
        self.grid = TimeGrid(0.05, 20.0, 7.0, 1000, 0, 999)
        config = RatioConfig(decay=0.9)
        self.weights = RatioWeights(config, f, self.grid.quantile_edges(config.bins))
        self.state = self.weights.first()
        critics = [*self.raw_fake.parameters(), *self.judge.parameters()]
        self.optimizer = torch.optim.Adam(self.student.parameters(), plan.lr, betas=(0.0, 0.99))
        self.critic_optimizer = torch.optim.Adam(critics, plan.lr / 2, betas=(0.0, 0.99))

    def train(self) -> None:
        """All updates."""
        for step in range(self.plan.steps):
            for _ in range(self.plan.critic_updates):
                _step(self.critic_optimizer, self.critic_loss())
            rate = self.plan.lr * 0.5 * (1 + math.cos(math.pi * step / self.plan.steps))
            self.optimizer.param_groups[0]["lr"] = rate
            _step(self.optimizer, self.student_loss())

    def draw(self, number: int) -> Tensor:
        """Points of the student, float32[number, 2]."""
        points: Tensor = self.ring.scale * self.student(torch.randn(number, 2, generator=self.generator))
        return points

    def critic_loss(self) -> Tensor:
        """Fake score and discriminator, each at its own times."""
        with torch.no_grad():
            x = self.draw(self.plan.batch)
        t, noise = self._times(), self._noise()
        x_t, real_t = noised(x, noise, t), self._times()
        real = noised(self.ring.sample(self.plan.batch, self.generator), self._noise(), real_t)
        score = denoising(self.fake(x_t, t), x, noise, weight=edm_weight(t, self.ring.scale))
        judged = gan_discriminator(self.logits(real, real_t), self.logits(x_t, t))
        # Both losses have networks of their own; the sum only saves a backward pass.
        return (score + judged).mean()

    def student_loss(self) -> Tensor:
        """Matching with weights, and the adversarial loss."""
        x, t = self.draw(self.plan.batch), self._times()
        x_t = noised(x, self._noise(), t)
        logits = self.logits(x_t, t)
        everyone = torch.ones(len(x), dtype=torch.bool)
        found = self.weights(logits, t, everyone, self.state, Alone())
        self.state = found.state
        with torch.no_grad():
            teacher, fake = self.ring.denoised(x_t, t), self.fake(x_t, t)
        losses = distribution_matching(x, teacher, fake, found.h) + self.plan.gan_weight * gan_generator(logits)
        return losses.mean()

    def fake(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The fake score's estimate of x, by EDM's scalings."""
        s, data = t[:, None], self.ring.scale
        total = (s.square() + data**2).sqrt()
        raw = self.raw_fake(self._input(x_t, t))
        estimate: Tensor = (data**2 / total.square()).float() * x_t + (s * data / total).float() * raw
        return estimate

    def logits(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Of the discriminator, [B, 1]."""
        found: Tensor = self.judge(self._input(x_t, t))
        return found

    def _input(self, x_t: Tensor, t: Tensor) -> Tensor:
        total = (t.square() + self.ring.scale**2).sqrt()
        return torch.cat([x_t / total.float()[:, None], (t.log() / 4).float()[:, None]], 1)

    def _times(self) -> Tensor:
        return self.grid.sigmas[torch.randint(self.grid.size, (self.plan.batch,), generator=self.generator)]

    def _noise(self) -> Tensor:
        return torch.randn(self.plan.batch, 2, generator=self.generator)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One update of the networks of `optimizer`; what else the loss has touched takes no gradient with it."""
    trained: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
        parameter.grad = gradient
    optimizer.step()


@dataclass(frozen=True)
class RingFound:
    """What a student's points show.

    Args:
        modes: that have at least a quarter of the points that they should have.
        high_quality: share of points within three standard deviations of the nearest mode.
        divergence: D_f of the shares of modes, teacher against student, for the f that was asked for.
        forward_kl: KL of the same, which compares students of different f.
    """

    modes: int
    high_quality: float
    divergence: float
    forward_kl: float


def look(points: Tensor, ring: Ring, f: Divergence) -> RingFound:
    """Count the points of a student, float[N, 2], by the nearest mode."""
    distances = torch.cdist(points.detach().double(), ring.means)
    nearest, which = distances.min(1)
    shares = torch.bincount(which, minlength=ring.modes).double() / len(points)
    good = nearest <= 3 * ring.std
    reached = torch.bincount(which[good], minlength=ring.modes) / len(points) >= ring.weights / 4
    # A mode without a point would be infinitely far in some divergences: half a point stands for it.
    smoothed = shares.clamp(min=0.5 / len(points))
    smoothed = smoothed / smoothed.sum()
    ratio = ring.weights / smoothed
    both = [float((smoothed * each.f(ratio)).sum()) for each in (f, DIVERGENCES["kl"])]
    return RingFound(int(reached.sum()), float(good.double().mean()), *both)
