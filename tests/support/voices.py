"""Speech-like signals and sound files for tests."""

import struct
import wave
from pathlib import Path

import numpy as np


def voice(number, seconds=1.0, rate=16000):
    """float64[T]: a buzz of harmonics whose loudness goes up and down like syllables, with pauses."""
    rng = np.random.default_rng(number)
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(100, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    buzz = sum(np.cos(h * phase) / h for h in range(1, 15))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0.3, 1.2)), 0, None)
    return 0.1 * buzz * syllables


def write_wav(path, samples, rate=16000, channels=1):
    """A 16-bit wav file of [T] (or [T, channels]) in [-1, 1]."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.clip(np.round(np.asarray(samples) * 32768), -32768, 32767).astype("<i2").tobytes())
    return path


def wav_bytes(data, code, bits, rate=16000, channels=1, extra=b"", size=None):
    """A wav file made by hand: format code 1 (PCM), 3 (float) or 0xFFFE (extensible); `size` lies about the data."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
