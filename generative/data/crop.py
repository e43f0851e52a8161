"""Which part of a recording a training step sees, as a function of (seed, stream, sample id).

Shapes: B samples, n samples of a wave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.randomness import Streams


def samples_for(frames: int, hop: int) -> int:
    """Samples of which a centred short-time Fourier transform makes exactly `frames` frames: (frames - 1) * hop."""
    return (frames - 1) * hop


def random_starts(streams: Streams, sample_ids: Tensor | Sequence[int], lengths: Tensor, target: int) -> Tensor:
    """First sample of each crop, int64[B]: floor(u (length - target)) with u in [0, 1), and 0 in short recordings.

    Args:
        streams: of the data; sample ids count over the whole run, so each epoch has crops of its own.
        sample_ids: int64[B].
        lengths: int64[B], samples of each recording.
        target: samples of a crop.
    """
    room = (lengths - target).clamp(min=0)
    uniform = streams.uniform("crop", sample_ids, (), torch.float64)
    return (uniform.to(room.device) * room).long()


def centre_start(length: int, target: int) -> int:
    """First sample of the crop in the middle, for validation."""
    return max(0, length - target) // 2


def crop(wave: Tensor, start: int, target: int) -> Tensor:
    """`target` samples of [..., n] from `start` on; a shorter wave stands in the middle of zeros."""
    missing = target - wave.shape[-1]
    if missing <= 0:
        return wave[..., start : start + target]
    return F.pad(wave, (missing // 2, missing - missing // 2))
