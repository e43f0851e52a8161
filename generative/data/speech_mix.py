"""Speech and noise at a drawn signal-to-noise ratio, in a room or not; and mixtures that never change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generative.data.speech_data import HELD_OUT, Pair, Utterances
from generative.data.speech_draws import below, uniform
from generative.data.speech_files import Signal
from generative.data.speech_noises import Noise
from generative.data.speech_rooms import convolved
from generative.data.speech_tracks import Track
from generative.data.speech_voices import Voice, centred, rms
from generative.randomness import Streams

_HIGHEST = 0.99
"""Peak to which a mixture that would clip is brought, together with its clean speech."""
_FAINTEST = 1e-6


@dataclass(frozen=True)
class Levels:
    """Signal-to-noise ratios in dB: drawn from [low, high], or given ones in turn.

    Args:
        low, high: of the uniform distribution.
        turn: sample n gets number n mod K of these instead.
    """

    low: float = 0.0
    high: float = 0.0
    turn: tuple[float, ...] = ()

    def of(self, number: int, streams: Streams) -> float:
        """That of a sample."""
        if self.turn:
            return self.turn[number % len(self.turn)]
        return uniform(streams, "snr", number, self.low, self.high)


@dataclass(frozen=True)
class Rooms:
    """Impulse responses of rooms, reverberant and dry; each sample is drawn one."""

    wet: Track
    dry: Track

    def of(self, clean: Signal, number: int, streams: Streams) -> Pair:
        """Dry and reverberant speech, each as long as `clean`."""
        room = below(streams, "room", number, len(self.wet))
        dry, wet = (convolved(clean, track.read(room), len(clean)) for track in (self.dry, self.wet))
        return dry, wet


@dataclass(frozen=True)
class Mixtures:
    """Speech with noise: noisy = speech + g noise, with 10 log10(P_speech / (g^2 P_noise)) the level; P is mean square.

    The power of the speech is that of the crop (or of the whole utterance) that is mixed; in a room that of the
    reverberant speech, while "clean" is the dry one.

    Args:
        size: number of mixtures.
        voice: who speaks.
        noise: what disturbs.
        levels: signal-to-noise ratios.
        prefix: of the mixtures' names.
        rooms: reverberation, or None.
        names: of the mixtures, where they have some.
    """

    size: int
    voice: Voice
    noise: Noise
    levels: Levels
    prefix: str
    rooms: Rooms | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.size

    def name(self, number: int) -> str:
        """See Utterances."""
        if self.names:
            return self.names[number]
        level = f"_{self.levels.turn[number % len(self.levels.turn)]:g}dB" if self.levels.turn else ""
        return f"{self.prefix}_{number:05d}{level}"

    def pair(self, number: int, streams: Streams, length: int | None = None) -> Pair:
        """See Utterances; both are scaled alike where the mixture would clip."""
        clean = said = self.voice.speak(number, streams, length)
        if self.rooms is not None:
            clean, said = self.rooms.of(clean, number, streams)
        noise = self.noise.sound(number, streams, len(said))
        noisy = said + noise_gain(said, noise, self.levels.of(number, streams)) * noise
        scale = np.float32(min(1.0, _HIGHEST / max(float(np.abs(noisy).max()), _FAINTEST)))
        return clean * scale, noisy * scale


def noise_gain(speech: Signal, noise: Signal, level: float) -> np.float32:
    """g such that g `noise` is `level` dB below `speech` in mean square; silent noise keeps its loudness.

    Args:
        speech: [T].
        noise: [T'].
        level: in dB.
    """
    loudness = rms(noise)
    return np.float32(rms(speech) / loudness * 10 ** (-level / 20) if loudness > _FAINTEST else 1.0)


@dataclass(frozen=True)
class Fixed:
    """Mixtures as a corpus has them: always the same noise in a whole utterance, of which crops are cut.

    Args:
        mixtures: whole utterances in noise.
        part: names the streams that they are drawn from.
    """

    mixtures: Utterances
    part: str

    def __len__(self) -> int:
        return len(self.mixtures)

    def name(self, number: int) -> str:
        """See Utterances."""
        return self.mixtures.name(number)

    def pair(self, number: int, streams: Streams, length: int | None = None) -> Pair:
        """See Utterances."""
        clean, noisy = self.mixtures.pair(number, HELD_OUT.within(self.part))
        if length is None:
            return clean, noisy
        if len(clean) <= length:
            return centred(clean, length), centred(noisy, length)
        start = below(streams, "crop", number, len(clean) - length + 1)
        return clean[start : start + length], noisy[start : start + length]
