"""PSNR, SSIM and coverage by what they are."""

from __future__ import annotations

import math

import torch

from evaluation.restoration import coverage, psnr, ssim


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_known_error() -> None:
    truth = torch.zeros(2, 3, 8, 8)
    found = psnr(truth + torch.tensor([0.1, 0.5])[:, None, None, None], truth)
    torch.testing.assert_close(
        found, torch.tensor([20 * math.log10(20), 20 * math.log10(4)]).double(), rtol=1e-5, atol=0
    )


def test_ssim_is_one_for_equals_and_falls_with_noise() -> None:
    truth = random(3, 1, 16, 16).clamp(-1, 1)
    torch.testing.assert_close(ssim(truth, truth), torch.ones(3, dtype=torch.float64))
    noise = random(3, 1, 16, 16, seed=1)
    little, much = ssim(truth + 0.1 * noise, truth), ssim(truth + 0.5 * noise, truth)
    assert bool((much < little).all())
    assert bool((little < 1).all())
    torch.testing.assert_close(ssim(truth[1:2], (truth + noise)[1:2]), ssim(truth, truth + noise)[1:2])
    # flat images: only the means differ
    a, b, c1 = 0.2, 0.6, 0.02**2
    flat = torch.full((1, 1, 5, 7), a), torch.full((1, 1, 5, 7), b)
    wanted = torch.tensor([(2 * a * b + c1) / (a * a + b * b + c1)]).double()
    torch.testing.assert_close(ssim(*flat), wanted, rtol=1e-5, atol=0)


def test_exact_samples_cover_as_they_should() -> None:
    for count in (5, 40):
        # uniform, for which interpolated quantiles are unbiased
        drawn = torch.rand(count + 1, 1, 1, 100, 100, generator=torch.Generator().manual_seed(count))
        found = float(coverage(drawn[:-1], drawn[-1])[0])
        assert abs(found - 0.9 * (count - 1) / (count + 1)) < 0.02
    wide = torch.tensor([-10.0, 10.0]).reshape(2, 1, 1, 1, 1).expand(2, 1, 1, 4, 4)
    assert coverage(wide, torch.zeros(1, 1, 4, 4))[0] == 1
    assert coverage(wide + 30, torch.zeros(1, 1, 4, 4))[0] == 0
