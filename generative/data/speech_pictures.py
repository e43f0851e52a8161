"""Sounds as pictures: log-magnitude spectrograms one above the other, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from generative.data.image_files import encode_png
from generative.errors import DataError

WIDTH, HEIGHT, GAP = 800, 160, 2
"""Pixels: of a spectrogram, and of the white line below it."""

WINDOW_SECONDS = 0.032
"""Of the Hann window: long enough to see the harmonics of a voice, short enough to see syllables."""

RANGE_DB = 80.0
"""What lies so far below the loudest point of all signals, or farther, is darkest."""

LEVELS = 64
"""Colours, 1.3 dB apart: more cannot be told from each other, and would make larger files."""

_RAMP = ((8, 8, 24), (60, 28, 110), (146, 48, 116), (222, 88, 72), (248, 164, 72), (253, 243, 200))
"""RGB from darkest to brightest in nearly equal steps of lightness (17 to 22 of L*), so it reads in gray, too."""

_WHITE = LEVELS
"""Row of the palette."""

Power = NDArray[np.float64]


def spectrogram_png(signals: Sequence[ArrayLike], rate: int) -> bytes:
    """A PNG file with the spectrograms of signals [T], the first on top, white lines between them.

    Time goes to the right, frequency up from 0 to rate / 2, both linear. Each spectrogram has WIDTH x HEIGHT pixels
    whatever T is: a pixel is the mean power of what falls into it, in dB below the loudest pixel of all signals.

    Args:
        signals: of one length, any scale.
        rate: in Hz.

    Raises:
        DataError: no signals, signals of several lengths or of none, values that are not finite, or Pillow is not
            installed.
    """
    waves = _checked(signals)
    # The scale falls out below; dividing by the peak first keeps squares of any signal from becoming 0 or infinite.
    peak = float(np.abs(waves).max())
    powers = np.stack([_power(wave / peak if peak > 0 else wave, rate) for wave in waves])
    levels = _levels(powers)[:, ::-1]
    lined = np.pad(levels, ((0, 0), (0, GAP), (0, 0)), constant_values=_WHITE)
    return encode_png(lined.reshape(-1, WIDTH, 1)[:-GAP], _palette())


def _checked(signals: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """float64[signals, T]."""
    waves = [np.asarray(signal, dtype=np.float64) for signal in signals]
    shapes = sorted({wave.shape for wave in waves})
    if len(shapes) != 1 or len(shapes[0]) != 1 or shapes[0][0] == 0:
        raise DataError(
            f"signals of shape {' and '.join(str(list(shape)) for shape in shapes) or 'none'}",
            expected="[T], one length for all, and at least one sample",
            remedy="cut or pad them to one length before drawing them",
        )
    wrong = sum(int((~np.isfinite(wave)).sum()) for wave in waves)
    if wrong:
        raise DataError(
            f"{wrong} of {len(waves) * shapes[0][0]} samples of the signals are not finite",
            expected="finite samples",
            remedy="the model has diverged: take an earlier checkpoint, or train with a lower learning rate",
        )
    return np.stack(waves)


def _power(wave: NDArray[np.float64], rate: int) -> Power:
    """Mean power [HEIGHT, WIDTH] of a signal [T], the lowest frequency first.

    Windows are centred at even distances, several to a pixel where the signal is long, so that none of it is left out.
    """
    size = max(4, round(WINDOW_SECONDS * rate))
    window = np.hanning(size + 1)[:-1]
    each = max(1, ceil(len(wave) / WIDTH / (size / 2)))
    starts = ((np.arange(WIDTH * each) + 0.5) * len(wave) / (WIDTH * each)).astype(np.int64)
    padded = np.pad(wave, size // 2 + 1, mode="symmetric")  # zeros would draw a click at each end
    columns = [
        (np.abs(np.fft.rfft(padded[chosen[:, None] + np.arange(size)] * window)) ** 2).mean(axis=0)
        for chosen in starts.reshape(WIDTH, each)
    ]
    return _rows(np.stack(columns, axis=1))


def _rows(power: Power) -> Power:
    """[HEIGHT, W] of [bins, W]: each row the mean over its part of the spectrum."""
    total = np.concatenate([np.zeros((1, power.shape[1])), power.cumsum(axis=0)])
    edges = np.linspace(0, len(power), HEIGHT + 1)
    below = np.minimum(edges.astype(np.int64), len(power) - 1)
    within = total[below] + (edges - below)[:, None] * power[below]
    return np.diff(within, axis=0) / (len(power) / HEIGHT)


def _levels(power: Power) -> NDArray[np.uint8]:
    """Rows of the palette, 0 .. LEVELS - 1, for power of any shape; all 0 for silence."""
    loudest = float(power.max())
    if not loudest > 0:
        return np.zeros(power.shape, dtype=np.uint8)
    decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE_DB / 10)))
    return np.round((decibels / RANGE_DB + 1) * (LEVELS - 1)).astype(np.uint8)


def _palette() -> NDArray[np.uint8]:
    """uint8[LEVELS + 1, 3]: the ramp, and white."""
    ramp: NDArray[Any] = np.array(_RAMP, dtype=np.float64)
    at = np.linspace(0, len(ramp) - 1, LEVELS)
    colours = np.stack([np.interp(at, np.arange(len(ramp)), ramp[:, channel]) for channel in range(3)], axis=1)
    return np.concatenate([colours.round(), [[255, 255, 255]]]).astype(np.uint8)
