"""Operators that are not linear: phase retrieval and high dynamic range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.methods.stsl.operators.base import Operator, side_of


def phase_retrieval(
    image: Sequence[int], oversample: float = 2.0, range: Literal["unit", "signed"] = "unit"
) -> Operator:
    """Magnitudes of the centred, orthonormal Fourier transform of the image, padded by int(oversample side / 8).

    unit: the image is mapped to [0, 1] before (DAPS); signed: it stays in [-1, 1] (DPS). No image can be read off the
    magnitudes: samplers start from noise.

    Raises:
        ConfigError: a padding of less than one pixel.
    """
    channels, height, width = side_of(image, "phase_retrieval")
    pads = int(oversample / 8 * height), int(oversample / 8 * width)
    if oversample <= 0 or min(pads) < 1:
        raise ConfigError(
            f"phase_retrieval: oversample={oversample:g} pads by {pads}", "one pixel or more", "give 2 or more"
        )

    def apply(x: Tensor) -> Tensor:
        shown = (x + 1) / 2 if range == "unit" else x
        padded = F.pad(shown, (pads[1], pads[1], pads[0], pads[0]))
        turned = torch.fft.fft2(torch.fft.ifftshift(padded, dim=(-2, -1)), norm="ortho")
        found: Tensor = torch.fft.fftshift(turned, dim=(-2, -1)).abs()
        return found

    measured = (channels, height + 2 * pads[0], width + 2 * pads[1])
    name = f"phase_retrieval:oversample={oversample:g},range={range}"
    return Operator(name, (channels, height, width), measured, apply)


def hdr(image: Sequence[int], scale: float = 2.0) -> Operator:
    """clip(scale x, -1, 1): bright and dark parts are lost.

    Raises:
        ConfigError: a scale below 1.
    """
    if scale < 1:
        raise ConfigError(f"hdr: scale={scale:g}", "1 or more", "give another scale")
    shape = side_of(image, "hdr")
    return Operator(
        f"hdr:scale={scale:g}",
        shape,
        shape,
        lambda x: (scale * x).clamp(-1, 1),
        rough=lambda y: y / scale,
        greatest=1.0,
    )
