"""Numbers of one sample from a counter-based stream."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from generative.data.speech_files import Signal
from generative.randomness import Streams


def uniforms(streams: Streams, name: str, number: int, count: int = 1) -> NDArray[np.float64]:
    """U[0, 1) float64[count] of sample `number`."""
    return streams.uniform(name, [number], (count,), torch.float64)[0].numpy()


def uniform(streams: Streams, name: str, number: int, low: float = 0.0, high: float = 1.0) -> float:
    """U[low, high) of sample `number`."""
    return low + (high - low) * float(uniforms(streams, name, number)[0])


def below(streams: Streams, name: str, number: int, high: int) -> int:
    """One of 0 .. high-1."""
    return int(uniforms(streams, name, number)[0] * high)


def normals(streams: Streams, name: str, number: int, count: int) -> Signal:
    """N(0, 1) float32[count] of sample `number`."""
    return streams.normal(name, [number], (count,))[0].numpy()
