"""Sound files: which there are, what their headers say, and their samples as one channel at one rate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from generative.data.packages import needed
from generative.data.speech_wave import Sound, UnusableError, read_wave, wave_bytes, wave_header
from generative.errors import DataError

SUFFIXES = (".wav", ".flac")
SILENT = 1e-10
"""Mean square (-100 dB of full scale) up to which a signal counts as silence."""

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """What files must be, or are brought to: see `SoundFiles` in speech_settings."""

    rate: int
    resample: bool
    channel: Literal["refuse", "first", "mean"]
    min_seconds: float

    def refusal(self, sound: Sound) -> str:
        """Why a file with this header cannot be used, or an empty text."""
        if sound.rate != self.rate and not self.resample:
            return f"{sound.rate} Hz, not {self.rate}"
        if sound.channels > 1 and self.channel == "refuse":
            return f"{sound.channels} channels"
        if sound.frames == 0:
            return "no samples in it"
        return f"shorter than {self.min_seconds:g} s" if sound.frames < self.min_seconds * sound.rate else ""


def find_sounds(root: Path, key: str, patterns: Sequence[str] = ("**/*",)) -> list[Path]:
    """All wav and flac files of a folder and the folders below it, sorted by path.

    Raises:
        DataError: no such folder, or no such file in it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", expected="a folder of wav or flac files", remedy=f"correct {key}")
    found = {p for pattern in patterns for p in root.glob(pattern) if p.suffix.lower() in SUFFIXES and p.is_file()}
    if not found:
        other = sum(p.is_file() for p in root.glob("**/*"))
        sphere = any(root.glob("**/*.wv1"))
        raise DataError(
            f"{root}: no wav or flac file among {other} files",
            expected=f"at least one file that ends with {' or '.join(SUFFIXES)}",
            remedy="convert the SPHERE files (sph2pipe -f wav IN.wv1 OUT.wav)" if sphere else f"correct {key}",
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_sound(path: Path) -> Sound:
    """The header of a file.

    Raises:
        UnusableError: it cannot be read.
        DataError: a flac file, and no package that reads it.
    """
    try:
        if path.suffix.lower() == ".wav":
            return wave_header(path)
        with _flac().SoundFile(str(path)) as file:
            bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}.get(file.subtype, 32)
            return Sound(file.samplerate, file.channels, file.frames, bits)
    except OSError as error:
        raise UnusableError(error.strerror or "cannot be read") from error
    except RuntimeError as error:  # soundfile's errors
        raise UnusableError("not a flac file" if path.stat().st_size else "empty") from error


def read_signal(path: Path, wanted: Wanted) -> Signal:
    """Samples float32[T] of a file, one channel at the wanted rate.

    Raises:
        UnusableError: damaged, silent, not finite, or refused by `wanted`.
    """
    sound = read_sound(path)
    if refusal := wanted.refusal(sound):
        raise UnusableError(refusal)
    try:
        channels = read_wave(path) if path.suffix.lower() == ".wav" else _read_flac(path)
    except (OSError, RuntimeError) as error:
        raise UnusableError("damaged") from error
    signal = channels[:, 0] if channels.shape[1] == 1 or wanted.channel == "first" else channels.mean(1)
    if not np.isfinite(signal).all():
        raise UnusableError("samples that are not finite")
    if is_silent(signal):
        raise UnusableError("silent")
    return resampled(np.ascontiguousarray(signal), sound.rate, wanted.rate)


def is_silent(signal: NDArray[Any]) -> bool:
    """Whether the mean square of [T] is -100 dB of full scale or less."""
    return not signal.size or float(np.square(signal, dtype=np.float64).mean()) <= SILENT


FloatT = TypeVar("FloatT", np.float32, np.float64)


def resampled(signal: NDArray[FloatT], rate: int, wanted: int) -> NDArray[FloatT]:
    """[ceil(T wanted / rate)] of the same type: [T] at another rate, by scipy's polyphase low-pass (Kaiser, beta 5).

    Raises:
        DataError: scipy is not installed.
    """
    if rate == wanted:
        return signal
    library = needed("scipy.signal", package="scipy", extra="speech", by="resampling", instead=f"files at {wanted} Hz")
    divisor = gcd(rate, wanted)
    return np.asarray(library.resample_poly(signal, wanted // divisor, rate // divisor), dtype=signal.dtype)


def sound_bytes(signal: Signal, rate: int, suffix: str) -> bytes:
    """A file of 16 bits of a signal [T] in [-1, 1), by its suffix: wav, or flac.

    Raises:
        DataError: flac, and no package that writes it.
        ValueError: values that are not finite.
    """
    if suffix.lower() == ".wav":
        return wave_bytes(signal, rate)
    file = io.BytesIO()
    _flac().write(file, np.clip(signal, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _flac() -> Any:
    return needed("soundfile", package="soundfile", extra="speech", by="reading flac files", instead="wav files")


def _read_flac(path: Path) -> Signal:
    return np.asarray(_flac().read(str(path), dtype="float32", always_2d=True)[0])
