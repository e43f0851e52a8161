"""The losses of spec section 2 and of the GANs that the entropy can be added to, as values of single samples.

Each function gives float[B] whose mean over the batch is the loss. Shapes: codes float[B, m], scores float[B] (means of
codes), images float[B, *shape].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Adversarial = Literal["wasserstein", "non_saturating", "hinge", "relativistic"]


def realness(codes: Tensor) -> Tensor:
    """Score of a code: the mean of its entries, float[B]."""
    return codes.mean(1)


@dataclass(frozen=True)
class AdversarialLoss:
    """Both sides of a game on scores.

    Args:
        discriminator: (real, fake) -> float[B].
        generator: (fake, real) -> float[B]; `real` is used by relativistic losses only.
        paired: whether the generator's loss compares with real images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False


ADVERSARIAL: dict[Adversarial, AdversarialLoss] = {
    "wasserstein": AdversarialLoss(lambda real, fake: fake - real, lambda fake, real: -fake),
    "non_saturating": AdversarialLoss(
        lambda real, fake: F.softplus(-real) + F.softplus(fake), lambda fake, real: F.softplus(-fake)
    ),
    "hinge": AdversarialLoss(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake), lambda fake, real: -fake),
    "relativistic": AdversarialLoss(
        lambda real, fake: F.softplus(fake - real), lambda fake, real: F.softplus(real - fake), paired=True
    ),
}
"""wasserstein is the paper's L_MaF (eq. 7); relativistic pairs the samples of a row (R3GAN)."""


def dlle(codes: Tensor, augmented: Tensor, form: Literal["code", "paper"] = "code") -> Tensor:
    """Distance from the codes of samples to those of their augmentations (eq. 12, 13).

    code: squared error to the detached augmented side; paper: its 2-norm, nothing detached.
    """
    if form == "code":
        return (codes - augmented.detach()).square().mean(1)
    # Unlike the root of a sum, its gradient is zero, not NaN, where both are equal.
    distance: Tensor = torch.linalg.vector_norm(codes - augmented, dim=1)
    return distance


def mix(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """alpha x real + (1 - alpha) x fake, the same alpha float[B] for all entries of a row."""
    alpha = alpha.view(-1, *[1] * (real.dim() - 1))
    return alpha * real + (1 - alpha) * fake


def disomap(codes_of_mix: Tensor, mix_of_codes: Tensor, form: Literal["code", "paper"] = "code") -> Tensor:
    """How far the code of a mixed image is from the mix of codes, which is a constant (eq. 14).

    code: squared error; paper: minus their cosine similarity.
    """
    target = mix_of_codes.detach()
    if form == "code":
        return (codes_of_mix - target).square().mean(1)
    return -F.cosine_similarity(codes_of_mix, target, dim=1)


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """|d score_i / d image_i|^2 of each row, float[B], differentiable (R1 on real images, R2 on generated ones)."""
    gradient: Tensor = torch.autograd.grad(scores.sum(), images, create_graph=True)[0]
    return gradient.flatten(1).square().sum(1)
