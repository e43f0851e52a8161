"""Losses of one-step distillation, as values of single samples whose mean over the batch is the published loss.

Sources: Xu et al. 2025 (arXiv 2502.15681), Yin et al. 2024 (DMD2, arXiv 2405.14867) and their released code. Shapes:
samples and predictions [B, *shape], logits [B, K] of K heads, weights and losses float[B].
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from generative.nets.precision import wide

Prediction = Literal["x0", "eps", "flow"]

SMALLEST = 1e-6
"""Added to the mean distance |x - teacher|, which is 0 where the student is perfect."""


def guided(teacher: Tensor, teacher_without: Tensor | None, scale: float) -> Tensor:
    """Classifier-free guidance: p + (scale - 1) (p - p_without); a scale of 1 needs no second prediction."""
    if teacher_without is None or scale == 1.0:
        return teacher
    return teacher + (scale - 1.0) * (teacher - teacher_without)


def distribution_matching(
    x: Tensor, teacher: Tensor, fake: Tensor, h: Tensor | None = None, normalised: bool = True
) -> Tensor:
    """0.5 mean g^2 with d/dx = g / numel of a sample, where g = (fake - teacher) h / mean |x - teacher|.

    Descending along g is descending D_f(p_t||q_t): score_p - score_q = alpha / sigma^2 (teacher - fake). The published
    form 0.5 mean (x - stopgrad(x - g))^2 has the same value and gradient, but loses digits of g where g is small
    beside x.

    Args:
        x: the student's samples, which alone take a gradient.
        teacher: the teacher's estimate of x from x_t (with guidance, if any).
        fake: that of the network which follows the student.
        h: float[B], weight of each sample; None: 1, reverse KL, which is DMD2.
        normalised: divide by mean |x - teacher| of the sample, as published. Without it the gradient is exactly
            (up to alpha / sigma^2) the one of the divergence.
    """
    x, teacher, fake = wide(x), wide(teacher.detach()), wide(fake.detach())
    weight = x.new_ones(len(x)) if h is None else h.detach().to(x.dtype)
    if normalised:
        weight = weight / ((x.detach() - teacher).abs().flatten(1).mean(1) + SMALLEST)
    g = (fake - teacher) * weight.view(-1, *[1] * (x.dim() - 1))
    # One wild sample must not take the step from all others.
    g = g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return 0.5 * (x - x.detach() + g).square().flatten(1).mean(1)


def edm_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """sigma^-2 + sigma_data^-2 = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, that of EDM's training."""
    return sigma.double() ** -2 + sigma_data**-2


def denoising(
    prediction: Tensor, x0: Tensor, noise: Tensor, of: Prediction = "x0", weight: Tensor | None = None
) -> Tensor:
    """weight mean (prediction - target)^2: how the fake score follows the student.

    Args:
        prediction: of the network, in the form `of`.
        x0: the student's samples, without gradient.
        noise: the noise that was added to them.
        of: x0; eps, the noise; or flow, noise - x0.
        weight: float[B], for x0 that of `edm_weight`; None: 1.
    """
    target = {"x0": x0, "eps": noise, "flow": noise - x0}[of].detach()
    error = (wide(prediction) - wide(target)).square().flatten(1).mean(1)
    return error if weight is None else error * weight.to(error.dtype)


def gan_generator(fake_logits: Tensor) -> Tensor:
    """mean softplus(-l), the non-saturating loss."""
    return F.softplus(-wide(fake_logits)).mean(1)


def gan_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """mean softplus(l_fake) + mean softplus(-l_real); its minimum is l = log(p_real / p_fake)."""
    return F.softplus(wide(fake_logits)).mean(1) + F.softplus(-wide(real_logits)).mean(1)


def approximate_r1(real_logits: Tensor, perturbed_logits: Tensor) -> Tensor:
    """mean (l(x) - l(x + small noise))^2, which needs no gradient of a gradient (Lin et al. 2025, arXiv 2501.08316)."""
    return (wide(real_logits) - wide(perturbed_logits)).square().mean(1)


def perturbed_input(real: Tensor, real_noised: Tensor, noise: Tensor, std: float, of_clean: bool = False) -> Tensor:
    """What the perturbed logits of `approximate_r1` are of: the noised real samples + std noise.

    The released code perturbs the clean samples instead, although it compares with logits of the noised ones, and shows
    the result to the discriminator as if it were at the same noise (`of_clean`).
    """
    return (real if of_clean else real_noised) + std * noise
