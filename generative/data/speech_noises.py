"""What disturbs: noise of files, coloured noise, or many voices at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from generative.data.speech_draws import below, normals, uniforms
from generative.data.speech_files import Signal
from generative.data.speech_settings import NoiseKinds
from generative.data.speech_tracks import Track
from generative.data.speech_voices import Voice, looped, rms
from generative.randomness import Streams

_BABBLE = 5


class Noise(Protocol):
    """Noise for a sample by its number."""

    def sound(self, number: int, streams: Streams, length: int) -> Signal:
        """float32[length], of any loudness."""
        ...


@dataclass(frozen=True)
class FileNoise:
    """A random part of a random file, which begins again at its end."""

    track: Track

    def sound(self, number: int, streams: Streams, length: int) -> Signal:
        """See Noise."""
        file = below(streams, "noise file", number, len(self.track))
        return looped(self.track, file, "noise place", number, streams, length)


@dataclass(frozen=True)
class ColouredNoise:
    """Gaussian noise whose power falls as 1/f^e, e ~ U[-0.5, 2]; in half of the samples it swells at 0.5 - 6 Hz."""

    rate: int

    def sound(self, number: int, streams: Streams, length: int) -> Signal:
        """See Noise."""
        exponent, swells, speed, depth, phase = uniforms(streams, "colour", number, 5)
        spectrum = np.fft.rfft(normals(streams, "coloured", number, length))
        # Below 20 Hz the power stays as it is there, else most of the energy of the reddest would be a slow drift.
        frequency = np.maximum(np.fft.rfftfreq(length, 1 / self.rate), 20.0)
        found = np.fft.irfft(spectrum * frequency ** (-(2.5 * exponent - 0.5) / 2), length)
        if swells < 0.5:
            time = np.arange(length) / self.rate
            found *= 1 + (0.3 + 0.7 * depth) * np.sin(2 * np.pi * ((0.5 + 5.5 * speed) * time + phase))
        return (found / rms(found)).astype(np.float32)


@dataclass(frozen=True)
class Babble:
    """Five others at once, equally loud."""

    voice: Voice

    def sound(self, number: int, streams: Streams, length: int) -> Signal:
        """See Noise."""
        found = np.zeros(length, np.float32)
        for talker in range(_BABBLE):
            said = self.voice.others(number, streams.within(f"babble {talker}"), length)
            found += said / np.float32(max(rms(said), 1e-6))
        return found


@dataclass(frozen=True)
class Blend:
    """One of several kinds of noise, drawn by their proportions."""

    kinds: tuple[Noise, ...]
    proportions: tuple[float, ...]

    def sound(self, number: int, streams: Streams, length: int) -> Signal:
        """See Noise."""
        steps = np.cumsum(self.proportions) / sum(self.proportions)
        kind = int(np.searchsorted(steps, uniforms(streams, "kind", number)[0], side="right"))
        return self.kinds[min(kind, len(self.kinds) - 1)].sound(number, streams, length)


def blend(wanted: NoiseKinds, voice: Voice, rate: int, files: Track | None) -> Noise:
    """The noise of a configuration; `files` may be None where no files are wanted."""
    kinds: list[tuple[Noise, float]] = [(ColouredNoise(rate), wanted.coloured), (Babble(voice), wanted.babble)]
    if files is not None:
        kinds.append((FileNoise(files), wanted.files))
    chosen = [(kind, share) for kind, share in kinds if share > 0]
    return Blend(tuple(kind for kind, _ in chosen), tuple(share for _, share in chosen))
