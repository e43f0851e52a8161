"""Who speaks: made voices, files, or words of files joined to utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from generative.data.order import permute
from generative.data.speech_draws import below, uniforms
from generative.data.speech_files import Signal, is_silent
from generative.data.speech_made import made_speech
from generative.data.speech_tracks import Track
from generative.randomness import Streams

_TRIES = 8
"""Places that are tried for a crop with some sound in it."""
_WORD_LOUDNESS = 0.08
"""Root mean square of a joined word."""


class Voice(Protocol):
    """Clean speech by number."""

    def speak(self, number: int, streams: Streams, length: int | None) -> Signal:
        """Utterance `number`: float32[length], drawn from the streams; None for the whole of it."""
        ...

    def others(self, number: int, streams: Streams, length: int) -> Signal:
        """float32[length] of somebody else than the speaker of utterance `number`; other streams, other speech."""
        ...


def crop(track: Track, file: int, name: str, number: int, streams: Streams, length: int) -> tuple[Signal, int]:
    """float32[length] of a longer file and where it begins: the first of a few drawn places that is not silent."""
    found, start = np.zeros(length, np.float32), 0
    for draw in uniforms(streams, name, number, _TRIES):
        start = int(draw * (track.lengths[file] - length + 1))
        found = track.read(file, start, length)
        if not is_silent(found):
            break
    return found, start


def centred(signal: Signal, length: int) -> Signal:
    """float32[length]: the middle of a longer signal, or a shorter one with zeros around it.

    Of an odd number of zeros one more comes after it than before, as in the released training code of SGMSE+.
    """
    spare = len(signal) - length
    if spare >= 0:
        return signal[spare // 2 : spare // 2 + length]
    return np.pad(signal, (-spare // 2, -spare - -spare // 2))


@dataclass(frozen=True)
class MadeVoice:
    """Made speech; every number is a speaker of its own."""

    rate: int
    seconds: float

    def speak(self, number: int, streams: Streams, length: int | None) -> Signal:
        """See Voice."""
        return made_speech(number, streams, round(self.seconds * self.rate) if length is None else length, self.rate)

    def others(self, number: int, streams: Streams, length: int) -> Signal:
        """See Voice."""
        return made_speech(number, streams, length, self.rate)


@dataclass(frozen=True)
class FileVoice:
    """Utterances of a track: samples 0 .. N-1 are all N files once, as are N .. 2N-1, and so on.

    Args:
        track: the files.
        speakers: of each file.
        shuffled: in the order of a fixed shuffle, so that the first few samples are of many speakers.
    """

    track: Track
    speakers: tuple[str, ...]
    shuffled: bool = True

    def speak(self, number: int, streams: Streams, length: int | None) -> Signal:
        """See Voice."""
        file = self._file(number)
        if length is None:
            return self.track.read(file)
        if self.track.lengths[file] <= length:
            return centred(self.track.read(file), length)
        return crop(self.track, file, "crop", number, streams, length)[0]

    def others(self, number: int, streams: Streams, length: int) -> Signal:
        """See Voice; another file of the same speaker where there is no other."""
        mine = self.speakers[self._file(number)]
        files = self._not_of[mine]
        file = int(files[below(streams, "other", number, len(files))])
        return looped(self.track, file, "other place", number, streams, length)

    def _file(self, number: int) -> int:
        epoch, place = divmod(number, len(self.track))
        return int(permute(np.array([place]), len(self.track), 0, epoch)[0]) if self.shuffled else place

    @cached_property
    def _not_of(self) -> dict[str, NDArray[np.int64]]:
        names = np.array(self.speakers)
        every = np.arange(len(names), dtype=np.int64)
        return {name: every[names != name] if (names != name).any() else every for name in set(self.speakers)}


@dataclass(frozen=True)
class JoinedVoice:
    """Words of one speaker one after the other, equally loud, with pauses between: sample n is of speaker n mod S.

    Args:
        track: the words.
        speakers: of each word.
        gap: shortest and longest pause in samples.
        whole: samples of a whole utterance.
    """

    track: Track
    speakers: tuple[str, ...]
    gap: tuple[int, int]
    whole: int

    def speak(self, number: int, streams: Streams, length: int | None) -> Signal:
        """See Voice; a crop begins somewhere in the first word, a whole utterance with it."""
        speaker = number % len(self._words)
        return self._say(self._words[speaker], number, streams, length or self.whole, cut=length is not None)

    def others(self, number: int, streams: Streams, length: int) -> Signal:
        """See Voice; the same speaker where there is no other."""
        mine, count = number % len(self._words), len(self._words)
        other = (mine + 1 + below(streams, "other", number, max(1, count - 1))) % count
        return self._say(self._words[other], number, streams, length, cut=True)

    @cached_property
    def _words(self) -> list[NDArray[np.int64]]:
        """Numbers of the words of each speaker, by the speakers' names."""
        names = np.array(self.speakers)
        return [np.flatnonzero(names == name) for name in sorted(set(self.speakers))]

    def _say(
        self, words: Sequence[int] | NDArray[np.int64], number: int, streams: Streams, length: int, cut: bool
    ) -> Signal:
        shortest = min(self.track.lengths[word] for word in words)
        draws = uniforms(streams, "words", number, 2 * (length // (shortest + self.gap[0]) + 3)).reshape(-1, 2)
        parts, total, skipped = list[Signal](), 0, 0
        for pick, pause in draws:
            word = self.track.read(int(words[int(pick * len(words))]))
            if cut and not parts:
                skipped = int(uniforms(streams, "cut", number)[0] * len(word))
            parts += [word * (_WORD_LOUDNESS / rms(word)), np.zeros(self._pause(pause), np.float32)]
            total += len(word) + len(parts[-1])
            if total - skipped >= length:
                break
        return np.concatenate(parts)[skipped : skipped + length].astype(np.float32)

    def _pause(self, draw: float) -> int:
        return self.gap[0] + int(draw * (self.gap[1] - self.gap[0] + 1))


def looped(track: Track, file: int, name: str, number: int, streams: Streams, length: int) -> Signal:
    """float32[length] of a file from a drawn place on; a shorter file begins again."""
    if track.lengths[file] > length:
        return crop(track, file, name, number, streams, length)[0]
    whole = track.read(file)
    start = below(streams, name, number, len(whole))
    return np.take(whole, np.arange(start, start + length), mode="wrap")


def rms(signal: NDArray[Any]) -> float:
    """Root mean square of [T]."""
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
