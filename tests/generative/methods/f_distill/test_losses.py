"""Losses and their gradients against the released code, and their signs against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generative.methods.f_distill.losses import (
    approximate_r1,
    denoising,
    distribution_matching,
    edm_weight,
    gan_discriminator,
    gan_generator,
    guided,
    perturbed_input,
)
from tests.generative.methods.f_distill.golden import arrays


@pytest.fixture
def golden() -> dict[str, Tensor]:
    return arrays("losses")


def same(found: Tensor, wanted: Tensor, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=1e-8)


@pytest.mark.parametrize(("suffix", "weighted"), [("plain", False), ("weighted", True)])
def test_distribution_matching(golden: dict[str, Tensor], suffix: str, weighted: bool) -> None:
    x, teacher, fake = (golden[key].requires_grad_() for key in ("gen_data", "teacher_x0", "fake_x0"))
    h = golden["h"].requires_grad_() if weighted else None
    loss = distribution_matching(x, teacher, fake, h).mean()
    same(loss, golden[f"loss_{suffix}"])
    inputs = [x, teacher, fake] + ([h] if h is not None else [])
    gradient, *others = torch.autograd.grad(loss, inputs, allow_unused=True)
    same(gradient, golden[f"grad_{suffix}"], 1e-4)
    assert others == [None] * len(others)


def test_gan(golden: dict[str, Tensor]) -> None:
    real, fake = golden["real_logits"].requires_grad_(), golden["fake_logits"].requires_grad_()
    generator, discriminator = gan_generator(fake).mean(), gan_discriminator(real, fake).mean()
    same(generator, golden["gan_gen"])
    same(discriminator, golden["gan_disc"])
    same(torch.autograd.grad(generator, fake)[0], golden["ggen_fake"])
    gradients = torch.autograd.grad(discriminator, [real, fake])
    same(gradients[0], golden["gdisc_real"])
    same(gradients[1], golden["gdisc_fake"])
    same(approximate_r1(real, golden["real_logits_perturbed"]).mean(), golden["gan_ar1"])


@pytest.mark.parametrize("of", ["x0", "eps", "flow"])
def test_denoising(golden: dict[str, Tensor], of: str) -> None:
    parts = [golden[f"dsm_{key}"] for key in ("pred", "x0", "eps")]
    same(denoising(*parts, of=of).mean(), golden[f"dsm_loss_{of}"])


def test_denoising_with_the_weight_of_the_teacher(golden: dict[str, Tensor]) -> None:
    parts = [golden[f"dsm_{key}"] for key in ("pred", "x0", "eps")]
    found = denoising(*parts, weight=edm_weight(golden["dmd2_sigma"]))
    same(found.mean(), golden["dmd2_fake_loss"])
    schedule = arrays("edm_schedule")
    torch.testing.assert_close(edm_weight(schedule["sigma"]), schedule["edm_weight"], rtol=1e-9, atol=0)
    torch.testing.assert_close(edm_weight(schedule["sigma"]), schedule["dmd2_weight"], rtol=1e-9, atol=0)


def test_a_step_goes_from_the_fake_to_the_teacher() -> None:
    """Teacher N(0, 1), student N(3, 1): at any time the samples must go down."""
    x = (3 + torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    sigma = 0.7
    shrink = 1 / (1 + sigma**2)
    teacher, fake = x.detach() * shrink, 3 + (x.detach() - 3) * shrink
    for normalised in (True, False):
        (gradient,) = torch.autograd.grad(distribution_matching(x, teacher, fake, normalised=normalised).sum(), x)
        assert bool((gradient > 0).all())
    # score_p - score_q = (teacher - fake) / sigma^2, and the scores of Gaussians are known.
    scores = (-x - (3 - x)) / (1 + sigma**2)
    torch.testing.assert_close(-gradient / sigma**2, scores)


def test_small_differences_keep_their_digits() -> None:
    x = torch.full((1, 3), 1000.0, requires_grad=True)
    teacher = x.detach() - 1.0
    fake = teacher + torch.tensor([[1.0, 2.0, 3.0]]) * 2**-13
    (gradient,) = torch.autograd.grad(distribution_matching(x, teacher, fake).sum(), x)
    torch.testing.assert_close(gradient, (fake - teacher) / 3, rtol=3e-6, atol=0)


def test_wild_samples_weigh_nothing() -> None:
    x = torch.zeros(2, 2, requires_grad=True)
    fake = torch.tensor([[torch.inf, torch.nan], [1.0, 1.0]])
    loss = distribution_matching(x, torch.ones(2, 2) * 2, fake).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient[0].tolist() == [0, 0]
    assert bool(loss.isfinite())


def test_guidance() -> None:
    with_label, without = torch.tensor([3.0]), torch.tensor([1.0])
    assert guided(with_label, without, 1.75).item() == pytest.approx(3 + 0.75 * 2)
    assert guided(with_label, without, 1.0) is with_label
    assert guided(with_label, None, 5.0) is with_label


def test_what_is_perturbed() -> None:
    real, noised, noise = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    assert perturbed_input(real, noised, noise, 0.1).item() == pytest.approx(1.2)
    assert perturbed_input(real, noised, noise, 0.1, of_clean=True).item() == pytest.approx(0.2)
