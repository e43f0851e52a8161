"""How near restorations come: PSNR, SSIM, and whether samples cover the truth.

Images float[..., C, H, W] in [-1, 1]; ranges are taken as 2, and nothing is stretched before comparing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

RANGE = 2.0
WINDOW, STD = 11, 1.5
"""SSIM's Gaussian window (Wang et al. 2004); smaller images take the largest odd window that fits."""


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """10 log10(range^2 / MSE) in dB of each image, float64[B]."""
    error = (found.double() - truth.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(RANGE**2 / error)


def ssim(found: Tensor, truth: Tensor) -> Tensor:
    """Mean structural similarity of each image, float64[B], over channels and windows that lie inside."""
    size = min(WINDOW, *found.shape[-2:])
    size -= 1 - size % 2
    places = torch.arange(size, dtype=torch.float64) - size // 2
    line = (-0.5 * (places / STD) ** 2).exp()
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x.flatten(0, 1)[:, None], kernel.to(x.device))

    a, b = found.double(), truth.double()
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    found_map = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return found_map.reshape(len(a), -1).mean(1)


def coverage(samples: Tensor, truth: Tensor, level: float = 0.9) -> Tensor:
    """Share of pixels of each image whose truth lies within the samples' central interval, float64[B].

    Few samples give a narrow one: n exact samples cover about level (n - 1) / (n + 1) of the time.

    Args:
        samples: [S, B, C, H, W], two or more of each image.
        truth: [B, C, H, W].
        level: of the interval, between interpolated quantiles.
    """
    low, high = (samples.double().quantile(q, dim=0) for q in ((1 - level) / 2, (1 + level) / 2))
    return ((truth >= low) & (truth <= high)).double().flatten(1).mean(1)
