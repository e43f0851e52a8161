"""Losses of single items; the trainer sums them and divides.

Source: Richter et al. 2024 (arXiv 2409.10753) and its released code. The published losses are sums over
bins and means over items, so values of several hundred are usual; divide by F K for a mean over bins.

Shapes: B items; spectrograms complex [B, 1, F, K]; std float [B]; each loss float [B].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.processes import spread
from generative.methods.sgmse.spectrogram import Spectrogram

Weighting = Literal["1", "sigma^2", "edm"]


def half_square(difference: Tensor) -> Tensor:
    """0.5 sum over bins of |difference|^2."""
    return 0.5 * difference.abs().square().flatten(1).sum(1)


def score_matching(score: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """0.5 sum |std score + z|^2: denoising score matching weighted by std^2; 0.5 F K for a network that gives 0."""
    return half_square(score * spread(std, score) + noise)


def denoising(
    score: Tensor, x_t: Tensor, mean: Tensor, std: Tensor, weighting: Weighting = "1", sigma_data: float = 0.1
) -> Tensor:
    """0.5 w sum |D - mean|^2 of the denoised D = std^2 score + x_t.

    w = 1, std^2, or (std^2 + sigma_data^2) / (std sigma_data)^2. The released code mixes the edm weights of a batch's
    items; here each item has its own.
    """
    variance = std.square()
    weight = {
        "1": variance**0,
        "sigma^2": variance,
        "edm": (variance + sigma_data**2) / (variance * sigma_data**2),
    }[weighting]
    error = half_square(score * spread(variance, score) + x_t - mean)
    return error * weight.to(error.dtype)


def data_prediction(estimate: Tensor, clean: Tensor) -> Tensor:
    """0.5 / (F K) sum |estimate - clean|^2."""
    return half_square(estimate - clean) / (clean.shape[-1] * clean.shape[-2])


def time_domain(estimate: Tensor, clean: Tensor) -> Tensor:
    """0.5 / n sum |estimate - clean| of waves float[B, n]."""
    return 0.5 * (estimate - clean).abs().mean(1)


def waves(spectrogram: Spectrogram, *spectrograms: Tensor) -> tuple[Tensor, ...]:
    """The crops that spectrograms of K frames were made of, float[B, (K - 1) hop]."""
    return tuple(spectrogram.inverse(each, (each.shape[-1] - 1) * spectrogram.hop) for each in spectrograms)


def pesq_loss(sample_rate: int) -> Callable[[Tensor, Tensor], Tensor]:
    """(clean, estimate) waves float[B, n] -> float[B], a differentiable PESQ by the package torch-pesq.

    Its filters come from torchaudio, whose wheels are built for CUDA and do not load beside a CPU build of torch.

    Raises:
        ConfigError: the package, or torchaudio, cannot be imported.
    """
    try:
        from torch_pesq import PesqLoss
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"the PESQ loss needs the package torch-pesq: {error}",
            expected="torch-pesq, with a torchaudio that fits the installed torch",
            remedy="run `pip install torch-pesq`, or set its weight to 0",
        ) from error
    module: Any = PesqLoss(1.0, sample_rate=sample_rate)

    def loss(clean: Tensor, estimate: Tensor) -> Tensor:
        values: Tensor = module.to(estimate.device)(clean, estimate)
        return values

    return loss
