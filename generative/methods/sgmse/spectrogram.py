"""From waveforms to the compressed complex spectrograms that the network sees, and back.

Sources: Welker et al. 2022 (arXiv 2203.17004); Richter et al. 2023 (arXiv 2208.05830); the released data module.

Shapes: B items, n samples, F = n_fft/2 + 1 bins, K = 1 + n // hop frames. Spectrograms are complex [B, 1, F, K].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import ConfigError, DataError

Transform = Literal["exponent", "log", "none"]
Window = Literal["hann", "sqrthann"]
Padding = Literal["zero", "reflection", "replication"]

TINY = 1e-12
"""Magnitudes below are compressed as if they were this one: powers below 1 have no bound at 0."""


@dataclass(frozen=True)
class Spectrogram:
    """Short-time Fourier transform and compression of magnitudes; phases are kept.

    exponent: c -> factor * |c|^exponent * e^(i arg c); log: factor * log(1 + |c|) * e^(i arg c); none: c itself, the
    factor is not used. Written as c times a positive number, so that nothing is singular at 0.

    Args:
        n_fft: length of window and transform, even.
        hop: samples from frame to frame; at most n_fft / 2, so that every sample is heard.
        window: periodic Hann window, or its square root.
        transform: how magnitudes are compressed.
        exponent: in (0, 1].
        factor: above 0.
    """

    n_fft: int = 510
    hop: int = 128
    window: Window = "hann"
    transform: Transform = "exponent"
    exponent: float = 0.5
    factor: float = 0.15

    def __post_init__(self) -> None:
        if self.n_fft < 2 or self.n_fft % 2 or not 1 <= self.hop <= self.n_fft // 2:
            raise ConfigError(
                f"n_fft={self.n_fft} with hop={self.hop}",
                expected="an even n_fft and a hop from 1 to n_fft / 2",
                remedy="take 510 and 128 at 16 kHz, 1534 and 384 at 48 kHz",
            )
        if not 0 < self.exponent <= 1 or self.factor <= 0:
            raise ConfigError(
                f"spectrogram exponent={self.exponent}, factor={self.factor}",
                expected="0 < exponent <= 1 and factor > 0",
                remedy="take 0.5 and 0.15 at 16 kHz, 0.667 and 0.065 at 48 kHz",
            )

    @property
    def bins(self) -> int:
        """F."""
        return self.n_fft // 2 + 1

    def frames(self, samples: int) -> int:
        """K of a waveform of so many samples."""
        return 1 + samples // self.hop

    def forward(self, wave: Tensor) -> Tensor:
        """Real [B, n], n >= 1, to compressed complex [B, 1, F, K]."""
        return self.compress(self.stft(wave))[:, None]

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """Compressed complex [B, 1, F, K] to real [B, length]; what lies beyond `length` is dropped."""
        return self.istft(self.expand(spectrogram.squeeze(1)), length)

    def stft(self, wave: Tensor) -> Tensor:
        """Real [B, n] to complex [B, F, K]: centred frames, reflected at both ends.

        Raises:
            DataError: a waveform without samples.
        """
        if wave.shape[-1] == 0:
            raise DataError("a waveform without samples", "at least one sample", "leave the file out")
        # Reflection needs more samples than it adds; shorter waves end in zeros, which `length` drops again.
        short = self.n_fft // 2 + 1 - wave.shape[-1]
        padded = F.pad(wave, (0, short)) if short > 0 else wave
        spectrum = torch.stft(padded, self.n_fft, self.hop, window=self._window(wave), return_complex=True)
        return spectrum[..., : self.frames(wave.shape[-1])]

    def istft(self, spectrum: Tensor, length: int) -> Tensor:
        """Complex [B, F, K] to real [B, length], the least-squares inverse."""
        window = self._window(spectrum.real)
        return torch.istft(spectrum, self.n_fft, self.hop, window=window, length=length)

    def compress(self, spectrum: Tensor) -> Tensor:
        """Magnitudes of complex [...] compressed."""
        if self.transform == "none":
            return spectrum
        if self.transform == "exponent" and self.exponent == 1.0:
            return self.factor * spectrum
        magnitude = spectrum.abs().clamp(min=TINY)
        if self.transform == "log":
            return spectrum * (self.factor * magnitude.log1p() / magnitude)
        return spectrum * (self.factor * magnitude ** (self.exponent - 1))

    def expand(self, compressed: Tensor) -> Tensor:
        """Inverse of `compress`; its gradient is finite everywhere."""
        if self.transform == "none":
            return compressed
        spectrum = compressed / self.factor
        if self.transform == "exponent" and self.exponent == 1.0:
            return spectrum
        magnitude = spectrum.abs().clamp(min=TINY)
        if self.transform == "log":
            return spectrum * (magnitude.expm1() / magnitude)
        return spectrum * magnitude ** (1 / self.exponent - 1)

    def _window(self, like: Tensor) -> Tensor:
        window = torch.hann_window(self.n_fft, dtype=like.dtype, device=like.device)
        return window.sqrt() if self.window == "sqrthann" else window


def pad_frames(spectrogram: Tensor, multiple: int = 64, mode: Padding = "reflection") -> Tensor:
    """Frames added on the right of [..., K] up to the next multiple, which the network's levels can halve.

    The published networks have 7 levels, hence 64 = 2^6. Reflection needs more frames than it adds; a shorter
    spectrogram repeats its last frame instead.
    """
    frames = spectrogram.shape[-1]
    extra = -frames % multiple
    if extra == 0:
        return spectrogram
    if mode == "zero":
        return F.pad(spectrogram, (0, extra))
    place = torch.arange(frames + extra, device=spectrogram.device)
    last = frames - 1
    mirrored = last - (place - last).abs() if mode == "reflection" and extra < frames else place.clamp(max=last)
    return spectrogram.index_select(-1, mirrored)
