"""Prepared sound: tracks of utterances one after the other in a file, and what their folder says about itself.

A folder holds a file of little-endian int16 or float32 for each track ("train.clean.bin") and `manifest.json`, which is
written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.files import check_file, map_file, write_json
from generative.data.manifest import MANIFEST, read_manifest
from generative.data.speech_files import Signal

FORMAT = {"format": "generative-speech", "version": 1}
FULL_SCALE = 2.0**15
"""Of int16: samples are number / 2^15."""
DTYPES = {"int16": "<i2", "float32": "<f4"}


@dataclass(frozen=True)
class PackedTrack:
    """What a manifest knows of a track: names and lengths of its utterances, type of its numbers, hash of its file."""

    names: tuple[str, ...]
    lengths: tuple[int, ...]
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Track:
    """Utterances in a file. Picklable: another process maps it by itself.

    Args:
        path: of the file.
        dtype: of its numbers, "<i2" or "<f4".
        names: of the utterances.
        lengths: of these, in samples.
    """

    path: Path
    dtype: str
    names: tuple[str, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "dtype", "names", "lengths")}

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    @cached_property
    def _numbers(self) -> NDArray[Any]:
        return map_file(self.path, self.dtype, int(self._starts[-1]))

    def read(self, number: int, start: int = 0, length: int | None = None) -> Signal:
        """Samples start .. start+length-1 (None: to the end) of an utterance, float32[length]."""
        stop = self.lengths[number] if length is None else start + length
        if not 0 <= start <= stop <= self.lengths[number]:
            raise IndexError(f"samples {start} .. {stop} of {self.lengths[number]}")
        found = self._numbers[self._starts[number] + start : self._starts[number] + stop]
        signal = found.astype(np.float32)
        return signal / np.float32(FULL_SCALE) if self.dtype == DTYPES["int16"] else signal


@dataclass(frozen=True)
class SpeechManifest:
    """What a prepared folder says about itself.

    Args:
        rate: of all tracks, in Hz.
        tracks: by name.
        description: where the sound comes from, for people.
        notes: what a person should know: files left out, rooms that could not be simulated.
        source: what it was made from.
    """

    rate: int
    tracks: Mapping[str, PackedTrack]
    description: str
    notes: Sequence[str] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `manifest.json` in one step: it is there whole or not at all."""
        write_json(folder / MANIFEST, {**FORMAT, **asdict(self)})

    @staticmethod
    def read(folder: Path) -> SpeechManifest:
        """Read `manifest.json`. Raises DataError where it is missing or not of this format."""

        def parse(values: dict[str, Any]) -> SpeechManifest:
            tracks = {
                name: PackedTrack(tuple(t["names"]), tuple(t["lengths"]), t["dtype"], t["sha256"])
                for name, t in values.pop("tracks").items()
            }
            return SpeechManifest(tracks=tracks, **values)

        return read_manifest(folder, FORMAT, parse)

    @property
    def fingerprint(self) -> str:
        """Identity of the samples and their names, wherever they came from."""
        tracks = {name: [t.names, t.lengths, t.dtype, t.sha256] for name, t in self.tracks.items()}
        return hashlib.sha256(json.dumps([self.rate, tracks]).encode()).hexdigest()

    def check(self, folder: Path, hashes: bool = False) -> None:
        """Compare the files with the manifest: their sizes, and with `hashes` every byte. Raises DataError."""
        for name, track in self.tracks.items():
            size = sum(track.lengths) * np.dtype(track.dtype).itemsize
            check_file(track_file(folder, name), size, track.sha256 if hashes else None)

    def track(self, folder: Path, name: str) -> Track:
        """The utterances of a track."""
        packed = self.tracks[name]
        return Track(track_file(folder, name), packed.dtype, packed.names, packed.lengths)


def track_file(folder: Path, name: str) -> Path:
    """The samples of a track."""
    return folder / f"{name}.bin"
