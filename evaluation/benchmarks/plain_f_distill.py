"""A step of f-distill written down straight, as its timing is compared with: every network is called for each purpose.

The student's samples go through the fake score, through the teacher for its estimate, and through the teacher again for
the discriminator's features, of which the whole graph is kept; the critic runs the whole teacher on the student's
samples and on real ones. The mathematics is that of `generative.methods.f_distill` with Jensen-Shannon weights and
without bins; nothing of it is imported but the networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Draws:
    """What an update draws.

    Args:
        z: the student's input over its noise level, [B, C, R, R].
        t: float64[B], times of the student's samples.
        noise: of them.
        real_t: float64[B], times of real samples.
        real_noise: of them.
    """

    z: Tensor
    t: Tensor
    noise: Tensor
    real_t: Tensor
    real_noise: Tensor


@dataclass(frozen=True)
class PlainStep:
    """The losses of critic and student.

    Args:
        student, fake, teacher: denoisers D(x, sigma, labels), which also give `features` of their encoders.
        heads: of the discriminator.
        levels: of the features.
        sigma: noise that the student starts from.
        gan_weight: lambda_G.
        joint_weight: of the discriminator's loss beside the fake score's.
        sigma_data: standard deviation of the data.
    """

    student: nn.Module
    fake: nn.Module
    teacher: nn.Module
    heads: nn.Module
    levels: list[int]
    sigma: float
    gan_weight: float
    joint_weight: float
    sigma_data: float = 0.5

    def critic_loss(self, batch: Mapping[str, Tensor], drawn: Draws) -> Tensor:
        """Denoising score matching and the discriminator's loss, mean over the batch."""
        labels = self._labels(batch)
        with torch.no_grad():
            x = self.student(self.sigma * drawn.z, torch.full_like(drawn.t, self.sigma), labels)
            x_t, real_t = _noised(x, drawn.t, drawn.noise), _noised(batch["sample"], drawn.real_t, drawn.real_noise)
            _, features = self.teacher(x_t, drawn.t, labels, features=self.levels)
            _, real_features = self.teacher(real_t, drawn.real_t, labels, features=self.levels)
        error = (self.fake(x_t, drawn.t, labels) - x).square().flatten(1).mean(1)
        score = error * (drawn.t**-2 + self.sigma_data**-2).float()
        judged = F.softplus(self.heads(features)).mean(1) + F.softplus(-self.heads(real_features)).mean(1)
        total: Tensor = (score + self.joint_weight * judged).mean()
        return total

    def student_loss(self, batch: Mapping[str, Tensor], drawn: Draws) -> tuple[Tensor, Tensor]:
        """Matching and adversarial loss, mean over the batch; and what keeps the teacher's graph."""
        labels = self._labels(batch)
        x = self.student(self.sigma * drawn.z, torch.full_like(drawn.t, self.sigma), labels)
        x_t = _noised(x, drawn.t, drawn.noise)
        with torch.no_grad():
            fake, teacher = self.fake(x_t, drawn.t, labels), self.teacher(x_t, drawn.t, labels)
        kept, features = self.teacher(x_t, drawn.t, labels, features=self.levels)
        logits = self.heads(features)
        r = logits.detach().mean(1).exp().clamp(0.1, 20.0)
        h = r / (1 + r)
        h = h / (h.mean() + 1e-6)
        distance = (x.detach() - teacher).abs().flatten(1).mean(1)
        g = (fake - teacher) * (h / (distance + 1e-6))[:, None, None, None]
        matching = 0.5 * F.mse_loss(x, (x - g).detach())
        return matching + self.gan_weight * F.softplus(-logits).mean(), kept

    def _labels(self, batch: Mapping[str, Tensor]) -> Tensor:
        return F.one_hot(batch["label"], self.teacher.size.classes).float()  # type: ignore[union-attr,arg-type]


def _noised(x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    return (x.double() + t[:, None, None, None] * noise.double()).to(x.dtype)
