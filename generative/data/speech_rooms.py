"""Simulated rooms: impulse responses of a shoebox with reverberation, and of the same room without.

As in WSJ0-REVERB (Richter et al. 2023): T60 uniform, sides U[5, 15] x U[5, 15] x U[2, 6] m, source and microphone at
least 1 m from every wall; image sources up to order 3 and ray tracing beyond. The dry room has the same geometry with
walls that absorb 99 %, and the direct path only. The absorption comes from Sabine's formula, as published: T60 is
nominal, and flat rooms reverberate longer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.packages import needed
from generative.data.speech_draws import uniforms
from generative.data.speech_files import Signal
from generative.randomness import Streams

_SIDES = ((5.0, 15.0), (5.0, 15.0), (2.0, 6.0))
_FROM_WALLS = 1.0
_MOST_IMAGES = 3
_DRY = 0.99
_ATTEMPTS = 64
_LOCK = threading.Lock()
"""pyroomacoustics' generators are global: one room at a time."""


@dataclass(frozen=True)
class Room:
    """Sides, places of source and microphone in m, T60 in s, and absorption and order of images that give it."""

    sides: NDArray[np.float64]
    source: NDArray[np.float64]
    microphone: NDArray[np.float64]
    t60: float
    absorption: float
    order: int


def rooms_available() -> bool:
    """Whether pyroomacoustics is installed."""
    return find_spec("pyroomacoustics") is not None


def draw_room(number: int, streams: Streams, t60: tuple[float, float]) -> Room:
    """Room `number` of a stream; the first of its draws whose T60 is possible (Sabine's formula inverted).

    Raises:
        DataError: pyroomacoustics is not installed.
    """
    library = _library()
    draws = uniforms(streams, "room", number, _ATTEMPTS * 10).reshape(_ATTEMPTS, 10)
    low = np.array([side[0] for side in _SIDES])
    high = np.array([side[1] for side in _SIDES])
    for draw in draws:
        time, sides = t60[0] + (t60[1] - t60[0]) * draw[0], low + (high - low) * draw[1:4]
        inner = sides - 2 * _FROM_WALLS
        source, microphone = (_FROM_WALLS + inner * draw[first : first + 3] for first in (4, 7))
        try:
            absorption, order = library.inverse_sabine(time, sides)
        except ValueError:  # even walls that absorb all would leave a longer reverberation
            continue
        return Room(sides, source, microphone, float(time), float(absorption), min(_MOST_IMAGES, int(order)))
    raise RuntimeError(f"no room of {_ATTEMPTS} can have a T60 in {t60}")


def impulse_responses(room: Room, rate: int, seed: int) -> tuple[Signal, Signal]:
    """Reverberant and dry responses float32[T], of one length, whose direct paths coincide.

    Args:
        room: the room.
        rate: in Hz.
        seed: of the ray tracing, 0 .. 2^32-1.

    Raises:
        DataError: pyroomacoustics is not installed.
    """
    library = _library()
    with _LOCK:
        library.random.seed(numpy=seed, libroom=seed)
        wet = _response(room, rate, room.absorption, room.order, True)
        dry = _response(room, rate, _DRY, 0, False)
    return wet, np.pad(dry, (0, max(0, len(wet) - len(dry))))[: len(wet)]


def _response(room: Room, rate: int, absorption: float, order: int, rays: bool) -> Signal:
    library = _library()
    box = library.ShoeBox(
        room.sides, fs=rate, materials=library.Material(absorption), max_order=order, ray_tracing=rays
    )
    box.add_source(room.source)
    box.add_microphone(room.microphone)
    box.compute_rir()
    return np.asarray(box.rir[0][0], dtype=np.float32)


def convolved(signal: Signal, response: Signal, length: int) -> Signal:
    """The first `length` samples (at most T + R - 1) of a signal [T] in a room of response [R], float32[length]."""
    count = len(signal) + len(response) - 1
    size = 1 << (count - 1).bit_length()
    spectrum = np.fft.rfft(signal, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[:length].astype(np.float32)


def _library() -> Any:
    return needed(
        "pyroomacoustics",
        package="pyroomacoustics",
        extra="rooms",
        by="reverberation",
        instead="data without it (data.rooms=null)",
    )
