"""Who speaks and what disturbs: utterances of files or made ones, and noise of files, coloured, or of many voices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from generative.data.order import permute
from generative.data.speech_config import NoiseKinds
from generative.data.speech_draws import below, normals, uniforms
from generative.data.speech_files import Signal, is_silent
from generative.data.speech_made import made_speech
from generative.data.speech_tracks import Track
from generative.randomness import Streams

_TRIES = 8
"""Places that are tried for a crop with some sound in it."""
_WORD_LOUDNESS = 0.08
"""Root mean square of a joined word."""
_BABBLE = 5


class Voice(Protocol):
    """Clean speech by number."""

    def speak(self, number: int, streams: Streams, length: int | None) -> Signal:
        """Utterance `number`: float32[length], drawn from the streams; None for the whole of it."""
        ...

    def others(self, number: int, streams: Streams, length: int) -> Signal:
        """float32[length] of somebody else than the speaker of utterance `number`; other streams, other speech."""
        ...


class Noise(Protocol):
    """Noise for a sample by its number."""

    def sound(self, number: int, streams: Streams, length: int) -> Signal:
        """float32[length], of any loudness."""
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
