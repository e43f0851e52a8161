"""Speech-like signals without any recording: harmonics of a moving pitch under moving formants, hisses and pauses.

Not speech, but made as speech is (source and filter, Fant 1960): syllables of a vowel, often after a fricative, joined
to phrases. A speaker is a range of pitch and a length of the vocal tract. Every sample is a function of its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from generative.data.speech_draws import normals, uniforms
from generative.data.speech_files import Signal
from generative.randomness import Streams

Curve = NDArray[np.float64]

_VOWELS = np.array(
    [
        [730, 1090, 2440],
        [270, 2290, 3010],
        [300, 870, 2240],
        [530, 1840, 2480],
        [570, 840, 2410],
        [660, 1720, 2410],
        [440, 1020, 2240],
        [490, 1350, 1690],
    ]
)
"""Formants in Hz of eight English vowels (men's means of Peterson and Barney 1952)."""
_BANDWIDTHS = np.array([90.0, 110.0, 170.0])
_STEPS = 100
"""Frames a second, on which pitch, formants and loudness are drawn."""
_SYLLABLE, _PAUSE, _HISS = (0.12, 0.32), (0.12, 0.4), (0.04, 0.1)
_PAUSES, _HISSES = 0.2, 0.6
"""Probability of a pause after a syllable, and of a fricative before its vowel."""
_LOUDNESS = 0.08
"""Root mean square of an utterance."""


@dataclass(frozen=True)
class _Frames:
    """Pitch in Hz [F], formants in Hz [F, 3], loudness of voice and of hiss [F]."""

    pitch: Curve
    formants: Curve
    voice: Curve
    hiss: Curve


def made_speech(number: int, streams: Streams, length: int, rate: int) -> Signal:
    """Utterance `number` of a stream: float32[length] at `rate` Hz with root mean square 0.08."""
    hop = max(1, rate // _STEPS)
    frames = _frames(number, streams, -(-length // hop) + 1)
    sound = _voiced(frames, hop, rate)
    sound += _along(frames.hiss, hop) * np.diff(normals(streams, "hiss", number, len(sound) + 1))
    found = sound[:length]
    return np.asarray(found * (_LOUDNESS / max(float(np.sqrt(np.mean(found**2))), 1e-6)), dtype=np.float32)


def _frames(number: int, streams: Streams, count: int) -> _Frames:
    speaker = uniforms(streams, "speaker", number, 3)
    base, tract = 85.0 * 2.8 ** speaker[0], 0.95 + 0.25 * speaker[0] + 0.1 * (speaker[1] - 0.5)
    syllables = int(count / _STEPS / _SYLLABLE[0]) + 2
    pitch, voice, hiss = np.full(count, base), np.zeros(count), np.zeros(count)
    formants = np.tile(_VOWELS[0] * tract, (count, 1))
    # The first syllable begins at once, so that no crop of an utterance's length is silent.
    place = 0
    for draw in uniforms(streams, "syllables", number, syllables * 8).reshape(syllables, 8):
        steps = [
            int(_STEPS * (low + (high - low) * d)) for (low, high), d in zip((_SYLLABLE, _HISS), draw, strict=False)
        ]
        begin = place + (steps[1] if draw[2] < _HISSES else 0)
        end = begin + steps[0]
        hiss[place:begin] = 0.03 + 0.06 * draw[3]
        voice[begin:end] = np.sin(np.pi * (np.arange(len(voice[begin:end])) + 0.5) / steps[0]) ** 0.5
        voice[begin:end] *= 0.6 + 0.4 * draw[4]
        formants[place:] = _VOWELS[int(draw[5] * len(_VOWELS))] * tract
        pitch[place:] = base * (0.9 + 0.25 * draw[6])
        pause = _PAUSE[0] + (_PAUSE[1] - _PAUSE[0]) * draw[7] / _PAUSES if draw[7] < _PAUSES else 0.0
        place = end + int(_STEPS * pause)
    return _Frames(_smooth(pitch, 9), np.stack([_smooth(f, 7) for f in formants.T], 1), _smooth(voice, 3), hiss)


def _voiced(frames: _Frames, hop: int, rate: int) -> Curve:
    """Sum over harmonics, each as loud as the formants are at its frequency; those near half the rate are left out.

    With z = exp(2 pi i phase) it is the real part of sum_h a_h z^h, by Horner's rule, once with the loudness at the
    frame before each sample and once with that at the frame after; in between it is a straight line.
    """
    phase = np.cumsum(_along(frames.pitch, hop)) / rate
    z = np.exp(2j * np.pi * (phase % 1)).astype(np.complex64).reshape(-1, hop)
    frequency = np.arange(1, int(0.45 * rate / frames.pitch.min()) + 1)[:, None] * frames.pitch
    loud = frames.voice * _envelope(frequency, frames.formants) * (frequency < 0.45 * rate)
    around = np.stack([loud[:, :-1], loud[:, 1:]], 1).astype(np.float32)[..., None]
    total = np.zeros((2, *z.shape), np.complex64)
    for harmonic in around[::-1]:
        total += harmonic
        total *= z
    ramp = np.arange(hop) / hop
    return np.asarray(total[0].real * (1 - ramp) + total[1].real * ramp, dtype=np.float64).reshape(-1)


def _envelope(frequency: Curve, formants: Curve) -> Curve:
    """Loudness [H, F] at frequencies [H, F] under formants [F, 3]: three resonances, falling by 6 dB an octave."""
    distance = (frequency[..., None] - formants) / _BANDWIDTHS
    return np.asarray((1 / (1 + distance**2)).sum(-1) * 300 / (300 + frequency) + 2e-3)


def _along(curve: Curve, hop: int) -> Curve:
    """A curve of frames [F] at every sample, straight lines between: [(F - 1) hop]."""
    ramp = np.arange(hop) / hop
    return (curve[:-1, None] + np.diff(curve)[:, None] * ramp).reshape(-1)


def _smooth(curve: Curve, width: int) -> Curve:
    """Moving mean over `width` (odd) frames, the ends repeated."""
    padded = np.pad(curve, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
