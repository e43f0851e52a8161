"""A network over spectrograms of any length: long ones in windows that fade into each other, in every call.

The windows are joined where the network answers, so every sampler sees one network and one state: neighbouring windows
are denoised together, step by step, and no seam is left (Bar-Tal et al. 2023, arXiv 2302.08113, for images).

Shapes: B items, F bins, K frames; spectrograms complex [B, 1, F, K].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.methods.sgmse.wrapping import Network


@dataclass(frozen=True)
class Windowed:
    """The network, on windows of at most `window` frames.

    Args:
        net: (x_t, y, t) -> complex [B, 1, F, K].
        window: frames, a multiple of what the network can halve.
        overlap: part of a window that it shares with the next, in (0, 1/2].
        at_once: windows in one call of the network; does not change results.
    """

    net: Network
    window: int = 1024
    overlap: float = 0.25
    at_once: int = 8

    def __call__(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """As the network: complex [B, 1, F, K] both, K a multiple of what it can halve; t [B]."""
        frames = x_t.shape[-1]
        if frames <= self.window:
            return self._in_parts(x_t, y, t)
        starts = self.starts(frames)
        rows, count = len(x_t), len(starts)
        x_t, y = (torch.cat([each[..., s : s + self.window] for s in starts]) for each in (x_t, y))
        found = self._in_parts(x_t, y, t.repeat(count)).reshape(count, rows, *x_t.shape[1:])
        weights = self._weights(starts, frames).to(found.real)
        joined = torch.zeros(*found.shape[1:-1], frames, dtype=found.dtype, device=found.device)
        for start, weight, part in zip(starts, weights, found, strict=True):
            joined[..., start : start + self.window] += weight * part
        return joined

    def starts(self, frames: int) -> list[int]:
        """First frame of each window; the last one ends with the spectrogram, and may share more."""
        stride = self.window - max(1, round(self.overlap * self.window))
        last = frames - self.window
        return [*range(0, last, stride), last]

    def _in_parts(self, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        parts = zip(*(torch.split(each, self.at_once) for each in (x_t, y, t)), strict=True)
        return torch.cat([self.net(*part) for part in parts])

    def _weights(self, starts: list[int], frames: int) -> Tensor:
        """Of each window's frames, float[W, window]: they rise and fall linearly, and add up to 1 in every frame."""
        shared = max(1, round(self.overlap * self.window))
        place = torch.arange(self.window, dtype=torch.float64)
        rising, falling = (place + 0.5) / shared, (self.window - place - 0.5) / shared
        shape = torch.minimum(rising, falling).clamp(max=1.0)
        whole = torch.zeros(frames, dtype=torch.float64)
        for start in starts:
            whole[start : start + self.window] += shape
        return torch.stack([shape / whole[start : start + self.window] for start in starts])
