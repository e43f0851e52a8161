"""Level of waveforms, so that loud and quiet recordings look alike to the network.

Source: the released data module of SGMSE+; the guards against silence are ours. Shapes: B items, n samples.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LevelOf = Literal["noisy", "clean", "not"]

SILENCE = 1e-8
"""Peaks below are silence (an all-zero crop has no level)."""
PAUSE = 1e-3
"""A clean crop whose peak is below this part of the noisy one's is a pause: dividing by it would blow the noise up."""


def peak(wave: Tensor) -> Tensor:
    """Greatest magnitude of real [B, n], [B, 1]; 1 where the wave is silent, so that dividing leaves it as it is."""
    top = wave.abs().amax(-1, keepdim=True)
    return torch.where(top > SILENCE, top, 1.0)


def level(clean: Tensor, noisy: Tensor, by: LevelOf = "noisy") -> Tensor:
    """What both waves [B, n] are divided by, [B, 1]: measured on the crop; at inference `peak` of the whole noisy file.

    by="clean" takes the clean peak, but the noisy one in pauses.
    """
    if by == "not":
        return torch.ones_like(noisy[..., :1])
    loud = peak(noisy)
    if by == "noisy":
        return loud
    top = clean.abs().amax(-1, keepdim=True)
    return torch.where(top > PAUSE * loud, top, loud)
