"""A diffusion network of two levels with the forward that the method asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.methods.f_distill.denoiser import DenoiserParts, FeatureMap

SHAPE = (1, 8, 8)
CLASSES = 3
WIDTH = 8


class TinyDenoiser(nn.Module):
    """EDM's scalings around four convolutions; sigma_data = 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.told = nn.Linear(1 + CLASSES, WIDTH)
        self.first = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.down = nn.Conv2d(WIDTH, WIDTH, 4, 2, 1)
        self.up = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.last = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        *,
        features: Sequence[int] | None = None,
        encoder_only: bool = False,
        decoder_gradient: bool = True,
    ) -> Any:
        s = sigma.double()[:, None, None, None]
        total = (s**2 + 0.25).sqrt()
        rows = x.new_zeros(len(x), CLASSES) if labels is None else labels.to(x.dtype)
        told = self.told(torch.cat([(sigma.double().log() / 4).to(x.dtype)[:, None], rows], 1))
        fine = F.silu(self.first(x / total.to(x.dtype)) + told[:, :, None, None])
        coarse = F.silu(self.down(fine))
        found = [(fine, coarse)[level] for level in features or ()]
        if encoder_only:
            return found
        with torch.set_grad_enabled(torch.is_grad_enabled() and decoder_gradient):
            raw = self.last(F.silu(self.up(F.interpolate(coarse, scale_factor=2.0))) + fine)
            skip, out = 0.25 / total**2, s * 0.5 / total
            estimate = skip.to(x.dtype) * x + out.to(x.dtype) * raw
        return estimate if features is None else (estimate, found)


def multiply_adds() -> tuple[int, int]:
    """Of the whole network, and of its encoder."""
    encoder = WIDTH * (1 + CLASSES) + WIDTH * 9 * 64 + WIDTH**2 * 16 * 16
    return encoder + WIDTH**2 * 9 * 64 + WIDTH * 9 * 64, encoder


PARTS = DenoiserParts(TinyDenoiser, SHAPE, CLASSES, (FeatureMap(WIDTH, 8), FeatureMap(WIDTH, 4)), *multiply_adds())
