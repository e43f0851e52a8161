"""What an opened source of speech is: pairs of clean and noisy utterances by number, and crops of them to train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from generative.data.order import Indices
from generative.data.sources import RenewedSource, Source, checked
from generative.data.speech_files import Signal
from generative.data.speech_tracks import Track
from generative.data.speech_voices import centred, crop
from generative.errors import DataError
from generative.method import DataFacts
from generative.randomness import Streams

Pair = tuple[Signal, Signal]
"""Clean and noisy float32[T]."""

_MOST_KEPT = 64 << 20
"""Bytes of validation samples that are kept in memory."""

HELD_OUT = Streams(0)
"""Held-out mixtures are always the same, whatever the run's seed is."""


class Utterances(Protocol):
    """Pairs of clean and noisy speech by number."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What a person would call it; no two are called alike."""
        ...

    def pair(self, number: int, streams: Streams, length: int | None = None) -> Pair:
        """Utterance `number`: a crop of `length` samples drawn from the streams, or (None) the whole of it."""
        ...


@dataclass(frozen=True)
class SpeechData:
    """Speech that is ready to be trained and evaluated on.

    Args:
        train: crops, drawn anew in each epoch: "clean" and "noisy" float32[B, length], as loud as they are.
        validation: the middle of each utterance to validate on, in the same form.
        whole: the utterances of "validation" and "test", of any length, for `whole_pair`.
        facts: the shape of a sample, (length,).
        sample_rate: in Hz.
        description: one line, for reports.
        fingerprint: identity of the samples, the same on every machine.
    """

    train: RenewedSource
    validation: Source
    whole: Mapping[str, Utterances]
    facts: DataFacts
    sample_rate: int
    description: str
    fingerprint: str

    def whole_pair(self, part: str, number: int) -> Pair:
        """Clean and noisy float32[T] of an utterance that is validated ("validation") or reported ("test") on."""
        return self.whole[part].pair(number, HELD_OUT.within(part))


@dataclass(frozen=True)
class Crops:
    """Crops of utterances: each a function of (seed, epoch, number of the utterance).

    Args:
        utterances: to cut from.
        length: of a crop, in samples.
        scope: names the streams.
    """

    utterances: Utterances
    length: int
    scope: str = "train"

    def __len__(self) -> int:
        return len(self.utterances)

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"clean", "noisy": float32[B, length]} of numbers int64[B], as drawn in epoch 0 under seed 0."""
        return self.fetch_anew(indices, np.zeros(len(indices), np.int64), 0)

    def fetch_anew(self, indices: Indices, epochs: Indices, seed: int) -> dict[str, Tensor]:
        """See RenewedSource."""
        streams = Streams(seed).within(self.scope)
        numbers = checked(indices, len(self)).tolist()
        drawn = zip(numbers, np.asarray(epochs).tolist(), strict=True)
        return stacked([self.utterances.pair(n, streams.at(epoch), self.length) for n, epoch in drawn], self.length)


@dataclass(frozen=True)
class Middles:
    """The middle of every utterance, always the same; shorter ones with zeros around.

    Args:
        utterances: to cut from.
        length: of a sample.
        part: names the streams, as `SpeechData.whole_pair` does.
    """

    utterances: Utterances
    length: int
    part: str = "validation"
    _kept: dict[int, Pair] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"clean", "noisy": float32[B, length]} of numbers int64[B]."""
        return stacked([self._middle(n) for n in checked(indices, len(self)).tolist()], self.length)

    def _middle(self, number: int) -> Pair:
        """Kept where all are small: mixing a whole utterance costs more than a small network's validation."""
        found = self._kept.get(number)
        if found is None:
            clean, noisy = self.utterances.pair(number, HELD_OUT.within(self.part))
            found = centred(clean, self.length).copy(), centred(noisy, self.length).copy()
            if 8 * self.length * len(self) <= _MOST_KEPT:
                self._kept[number] = found
        return found


def stacked(pairs: list[Pair], length: int) -> dict[str, Tensor]:
    """{"clean", "noisy": float32[B, length]}."""
    both = np.array(pairs, dtype=np.float32).reshape(-1, 2, length)
    clean, noisy = (torch.from_numpy(np.ascontiguousarray(both[:, k])) for k in (0, 1))
    return {"clean": clean, "noisy": noisy}


@dataclass(frozen=True)
class ReadyPairs:
    """Pairs of two tracks with the same names and lengths."""

    clean: Track
    noisy: Track

    def __len__(self) -> int:
        return len(self.clean)

    def name(self, number: int) -> str:
        """See Utterances."""
        return self.noisy.names[number]

    def pair(self, number: int, streams: Streams, length: int | None = None) -> Pair:
        """See Utterances; the same place of both."""
        if length is None or self.clean.lengths[number] <= length:
            pair = self.clean.read(number), self.noisy.read(number)
            return pair if length is None else (centred(pair[0], length), centred(pair[1], length))
        clean, start = crop(self.clean, number, "crop", number, streams, length)
        return clean, self.noisy.read(number, start, length)


def check_speech_batch(data: SpeechData, batch_size: int) -> None:
    """Refuse a global batch that would hold a training utterance twice.

    Raises:
        DataError: fewer training utterances than `batch_size`.
    """
    if len(data.train) < batch_size:
        raise DataError(
            f"{data.description}: {len(data.train)} training utterances, fewer than train.batch_size={batch_size}",
            expected=f"at least {batch_size}",
            remedy="lower train.batch_size, raise data.size where there is one, or give more files",
        )
