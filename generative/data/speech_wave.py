"""wav files: integers of 8 to 32 bits and floats of 32 or 64, plain or extensible; nothing needs to be installed."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MOST_RATE = 1 << 20
"""Hz; what tells more is damaged, and a filter to resample it would not fit any memory."""


class UnusableError(Exception):
    """Why a sound file cannot be used; many of them are told in one DataError."""


@dataclass(frozen=True)
class Sound:
    """What a header says: Hz, channels, samples of each channel, bits of a sample, and whether it is an integer."""

    rate: int
    channels: int
    frames: int
    bits: int
    integers: bool = True


@dataclass(frozen=True)
class _Layout:
    """Header, and where the samples begin."""

    sound: Sound
    offset: int


def wave_header(source: Path | bytes) -> Sound:
    """The header of a wav file, or of its content. Raises UnusableError."""
    if isinstance(source, bytes):
        return _layout(io.BytesIO(source), len(source)).sound
    with source.open("rb") as file:
        return _layout(file, source.stat().st_size).sound


def read_wave(path: Path) -> NDArray[np.float32]:
    """Samples float32[T, channels] of a wav file; integers are divided by 2^(bits-1). Raises UnusableError."""
    with path.open("rb") as file:
        layout = _layout(file, path.stat().st_size)
        file.seek(layout.offset)
        sound = layout.sound
        data = file.read(sound.frames * sound.channels * sound.bits // 8)
    return _numbers(data, sound).reshape(-1, sound.channels)


def wave_bytes(signal: NDArray[Any], rate: int) -> bytes:
    """A wav file of 16 bits of a signal [T] in [-1, 1): rounded to the nearest, and clipped at full scale.

    Raises:
        ValueError: more than one channel, or values that are not finite.
    """
    if signal.ndim != 1 or not np.isfinite(signal).all():
        raise ValueError(f"a signal of shape {list(signal.shape)}, expected finite values [T]")
    data = np.clip(np.round(signal * 2.0**15), -(2**15), 2**15 - 1).astype("<i2").tobytes()
    form = struct.pack("<IHHIIHH", 16, _PCM, 1, rate, 2 * rate, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + form + b"data" + struct.pack("<I", len(data)) + data
    )


def _layout(file: BinaryIO, size: int) -> _Layout:
    if size == 0:
        raise UnusableError("empty")
    start = file.read(12)
    if len(start) < 12 or start[:4] != b"RIFF" or start[8:] != b"WAVE":
        raise UnusableError("not a wav file")
    form: bytes | None = None
    while len(head := file.read(8)) == 8:
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            return _checked(form, file.tell(), length, size)
        if name == b"fmt ":
            form = file.read(min(length, 40))
            file.seek(length - len(form), 1)
        else:
            file.seek(length, 1)
        file.seek(length % 2, 1)  # chunks begin at even places
    raise UnusableError("no samples in it")


def _checked(form: bytes | None, offset: int, length: int, size: int) -> _Layout:
    if form is None or len(form) < 16:
        raise UnusableError("a header that cannot be read")
    code, channels, rate, _, block, bits = struct.unpack("<HHIIHH", form[:16])
    if code == _EXTENSIBLE and len(form) >= 26:
        code = struct.unpack("<H", form[24:26])[0]
    if (code, bits) not in {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}:
        raise UnusableError(f"wav format {code} with {bits} bits")
    if not channels or not 0 < rate <= _MOST_RATE or block != channels * bits // 8:
        raise UnusableError("a header that cannot be read")
    if offset + length > size:
        raise UnusableError(f"cut off: {size - offset} of {length} bytes of sound")
    return _Layout(Sound(rate, channels, length // block, bits, code == _PCM), offset)


def _numbers(data: bytes, sound: Sound) -> NDArray[np.float32]:
    if not sound.integers:
        return np.frombuffer(data, f"<f{sound.bits // 8}").astype(np.float32)
    if sound.bits == 8:  # the only ones without a sign
        return np.asarray((np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128)
    if sound.bits == 24:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (padded.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    numbers = np.frombuffer(data, f"<i{sound.bits // 8}") / 2.0 ** (sound.bits - 1)
    return np.asarray(numbers, dtype=np.float32)
