"""Noise of spectrograms, addressed by sample and frame.

Shapes: B items, F bins, K frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.randomness import Streams

Noise = Callable[[str, int], Tensor]
"""(stream, step) -> complex normal numbers like y, E|z|^2 = 1. Streams are "prior", "corrector" and "predictor"."""


def complex_normal(streams: Streams, name: str, sample_id: Tensor, like: Tensor) -> Tensor:
    """Complex [B, 1, F, K] with E|z|^2 = 1, in the type and on the device of `like`.

    Drawn frame after frame, so that the noise of a sample's first frames does not change where its spectrogram is
    padded for the sake of a longer one.
    """
    bins, frames = like.shape[-2:]
    drawn = streams.normal(name, sample_id, (frames, bins, 2), like.real.dtype)
    noise = torch.view_as_complex(drawn / math.sqrt(2)).transpose(1, 2)[:, None]
    return noise.to(like.device).contiguous()


@dataclass(frozen=True)
class StreamNoise:
    """`Noise` of counter-based streams.

    Args:
        streams: its step is not used: a sampler's own steps are counted.
        sample_id: int64[B].
        like: complex [B, 1, F, K], the noisy spectrogram.
    """

    streams: Streams
    sample_id: Tensor
    like: Tensor

    def __call__(self, name: str, step: int) -> Tensor:
        """See `Noise`."""
        return complex_normal(self.streams.at(step), name, self.sample_id, self.like)
