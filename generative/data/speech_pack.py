"""Sound files become tracks: looked at first, read in threads, written block by block, resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path

import numpy as np

from generative.data.cache import available_cores
from generative.data.files import file_hash, write_json
from generative.data.found import NAMED, Found
from generative.data.speech_files import Signal, Wanted, is_silent, read_signal, read_sound
from generative.data.speech_tracks import DTYPES, FULL_SCALE, PackedTrack, track_file
from generative.data.speech_wave import Sound, UnusableError
from generative.data.threads import map_in_threads
from generative.errors import DataError

_BLOCK = 64
"""Utterances that are read and written together: what an interruption costs."""

Make = Callable[[int, Sequence[Signal]], tuple[Signal, ...]]
"""From the number of an item and its files' signals to an utterance for each track; may raise UnusableError."""


@dataclass(frozen=True)
class Job:
    """Tracks that are written together, an utterance of each for every item.

    Args:
        tracks: their names.
        names: of the items.
        files: of each item; without `make` one for each track, all of the same length.
        make: what becomes of the files; None: they are the utterances.
        storage: of the tracks, where the job knows better than the settings.
    """

    tracks: tuple[str, ...]
    names: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]
    make: Make | None = None
    storage: str | None = None

    def utterances(self, number: int, wanted: Wanted) -> tuple[Signal, ...]:
        """An utterance float32[T] for each track. Raises UnusableError."""
        signals = tuple(read_signal(path, wanted) for path in self.files[number])
        return signals if self.make is None else self.make(number, signals)


@dataclass
class Culprits:
    """Items that cannot be used, by reason."""

    reasons: dict[str, Found] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        """One more."""
        self.reasons.setdefault(reason, Found()).add(name)

    def join(self, others: Culprits) -> None:
        """Take over those of another job."""
        for reason, found in others.reasons.items():
            mine = self.reasons.setdefault(reason, Found())
            mine.count, mine.names = mine.count + found.count, (mine.names + found.names)[:NAMED]

    @property
    def count(self) -> int:
        """Of all reasons."""
        return sum(found.count for found in self.reasons.values())

    def __str__(self) -> str:
        return "; ".join(f"{reason} ({found.count}: {found})" for reason, found in self.reasons.items())

    def error(self, where: str, total: int, wanted: Wanted) -> DataError:
        """All in one message, with what helps against each."""
        told, remedies = str(self), []
        if " Hz" in told:
            remedies.append(f"set data.resample=true to bring all to {wanted.rate} Hz (or correct data.sample_rate)")
        if " channels" in told:
            remedies.append("set data.channel=first or mean")
        remedies.append("replace or remove the others, or set data.leave_out=true to go on without them")
        return DataError(
            f"{where}: {self.count} of {total} files cannot be used: {told}",
            expected=f"whole wav or flac files with one channel at {wanted.rate} Hz, neither silent nor very short",
            remedy="; ".join(remedies),
        )


@dataclass(frozen=True)
class Scanned:
    """Whether each item of a job can be used, whether int16 would lose nothing of them, and those that cannot."""

    usable: list[bool]
    exact: bool
    culprits: Culprits


def scan(job: Job, wanted: Wanted, threads: ThreadPoolExecutor) -> Scanned:
    """Look at all headers of a job."""
    paths = [path for files in job.files for path in files]
    sounds = iter(list(map_in_threads(threads, _header, paths)))
    culprits, usable, exact = Culprits(), [], job.make is None
    for name, files in zip(job.names, job.files, strict=True):
        found = [next(sounds) for _ in files]
        reason = _refusal(found, wanted, job.make is None)
        usable.append(not reason)
        if reason:
            culprits.add(name, reason)
            continue
        exact = exact and all(_is_exact(sound, wanted) for sound in found if isinstance(sound, Sound))
    return Scanned(usable, exact, culprits)


def _header(path: Path) -> Sound | str:
    try:
        return read_sound(path)
    except UnusableError as error:
        return str(error)


def _is_exact(sound: Sound, wanted: Wanted) -> bool:
    """Whether int16 holds what becomes of a file."""
    whole = sound.integers and sound.bits <= 16 and sound.rate == wanted.rate
    return whole and (sound.channels == 1 or wanted.channel == "first")


def _refusal(found: Sequence[Sound | str], wanted: Wanted, alike: bool) -> str:
    for sound in found:
        if reason := sound if isinstance(sound, str) else wanted.refusal(sound):
            return reason
    lengths = {-(-sound.frames * wanted.rate // sound.rate) for sound in found if isinstance(sound, Sound)}
    return "clean and noisy of unequal length" if alike and len(lengths) > 1 else ""


def pack(
    job: Job, numbers: Sequence[int], wanted: Wanted, storage: str, folder: Path, tell: Callable[[int], None]
) -> tuple[dict[str, PackedTrack], Culprits]:
    """Write the tracks of a job; goes on after the last block that an earlier attempt finished in this folder.

    Args:
        job: the tracks and their items.
        numbers: items that are written.
        wanted: what files are brought to.
        storage: "int16" (rounded, and clipped at full scale) or "float32".
        folder: where the files go.
        tell: gets the number of items that each call adds.

    Returns:
        The tracks, and the items that turned out to be unusable when read: they are left out.
    """
    dtype, journal = DTYPES[storage], folder / f"{job.tracks[0]}.done"
    with ExitStack() as stack:
        files = [stack.enter_context(track_file(folder, track).open("a+b")) for track in job.tracks]
        done, kept, lengths, left_out = _resume(files, journal, np.dtype(dtype).itemsize)
        tell(done)
        threads = stack.enter_context(ThreadPoolExecutor(available_cores()))
        for block in _blocks(numbers[done:]):
            read = map_in_threads(threads, lambda number: _attempt(job, number, wanted), block)
            for number, found in zip(block, read, strict=True):
                if isinstance(found, str):
                    left_out[job.names[number]] = found
                    continue
                kept.append(job.names[number])
                lengths.append(len(found[0]))
                for file, signal in zip(files, found, strict=True):
                    file.write(stored(signal, storage))
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            done += len(block)
            write_json(journal, {"done": done, "names": kept, "lengths": lengths, "left_out": left_out})
            tell(len(block))
    culprits = Culprits()
    for name, reason in left_out.items():
        culprits.add(name, reason)
    packed = {
        track: PackedTrack(tuple(kept), tuple(lengths), dtype, file_hash(track_file(folder, track)))
        for track in job.tracks
    }
    return packed, culprits


def stored(signal: Signal, storage: str) -> bytes:
    """Samples [T] as they lie in a track."""
    if storage == "float32":
        return signal.astype("<f4").tobytes()
    return np.clip(np.round(signal * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()


def _attempt(job: Job, number: int, wanted: Wanted) -> tuple[Signal, ...] | str:
    try:
        found = job.utterances(number, wanted)
    except UnusableError as error:
        return str(error)
    if len({len(signal) for signal in found}) > 1:
        return "clean and noisy of unequal length"
    return "silent" if any(map(is_silent, found)) else found


def _resume(
    files: Sequence[BufferedRandom], journal: Path, itemsize: int
) -> tuple[int, list[str], list[int], dict[str, str]]:
    """What the journal vouches for: items done, names and lengths of those kept, reasons of those left out.

    What comes after them in the files is cut off.
    """
    try:
        values = json.loads(journal.read_text(encoding="utf-8"))
        found = int(values["done"]), list(values["names"]), list(values["lengths"]), dict(values["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        found = 0, [], [], {}
    if any(os.fstat(file.fileno()).st_size < sum(found[2]) * itemsize for file in files):
        found = 0, [], [], {}
    for file in files:
        file.truncate(sum(found[2]) * itemsize)
    return found


def _blocks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), _BLOCK):
        yield numbers[first : first + _BLOCK]
