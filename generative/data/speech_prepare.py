"""Read the sound files of a configuration once: looked at beforehand, complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.data.cache import PLAN, available_cores, begin, default_cache, make_once
from generative.data.documents import digest
from generative.data.manifest import MANIFEST
from generative.data.speech_config import (
    EarsWhamConfig,
    MixSpeechConfig,
    PairsSpeechConfig,
    PreparedSpeechConfig,
    VoiceBankConfig,
    Wsj0ChimeConfig,
)
from generative.data.speech_files import Wanted
from generative.data.speech_folders import mix_jobs
from generative.data.speech_pack import Culprits, Job, pack, scan
from generative.data.speech_pairs import ears_wham_jobs, folder_jobs, voicebank_jobs
from generative.data.speech_rooms import rooms_available
from generative.data.speech_tracks import PackedTrack, SpeechManifest
from generative.data.speech_wsj0 import chime_jobs, reverb_jobs
from generative.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the number of utterances that are done, and of all."""

_LOG = logging.getLogger(__name__)
_IRRELEVANT = {"cache", "length", "snr", "held_out_snrs", "seconds", "noises", "join", "gap"}
_IRRELEVANT |= {"size", "validation_size", "test_size"}
"""Settings that do not change what is prepared."""


@dataclass(frozen=True)
class SpeechJob:
    """What has to be prepared: jobs of tracks, and notes for people."""

    config: PreparedSpeechConfig
    jobs: Sequence[Job]
    notes: tuple[str, ...]

    @staticmethod
    def open(config: PreparedSpeechConfig) -> SpeechJob:
        """The job of a configuration; files are found but not read. Raises DataError."""
        notes = []
        if isinstance(config, MixSpeechConfig) and config.rooms and not rooms_available():
            if config.rooms.missing == "refuse":
                raise DataError(
                    "data.rooms needs the package pyroomacoustics, which is not installed",
                    expected="an installation with it",
                    remedy="pip install 'generative[rooms]', or set data.rooms=null",
                )
            notes.append("without reverberation, since pyroomacoustics is not installed (generative[rooms])")
        return SpeechJob(config, _jobs(config), tuple(notes))

    @property
    def wanted(self) -> Wanted:
        """What files must be."""
        c = self.config
        return Wanted(c.sample_rate, c.resample, c.channel, c.min_seconds)

    def identity(self) -> dict[str, Any]:
        """All that decides about the samples."""
        settings = {k: v for k, v in self.config.model_dump(mode="json").items() if k not in _IRRELEVANT}
        jobs = [[job.tracks, digest(_stamps(job))] for job in self.jobs]
        found: dict[str, Any] = json.loads(json.dumps({"layout": 1, "settings": settings, "jobs": jobs}))
        return found

    @property
    def key(self) -> str:
        """Name of the prepared folder."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:24]

    def build(self, partial: Path, progress: Progress) -> None:
        """Make (or go on making) the folder `partial`, with its manifest.

        Raises:
            DataError: files that cannot be used; those whose headers tell are told before anything is written.
        """
        usable, storages, notes = self._look()
        for note in self.notes:
            _LOG.warning("%s: %s", self.config.name, note)
        begin(partial, self.identity())
        total, done, tracks = sum(map(len, usable)), 0, dict[str, PackedTrack]()

        def tell(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        tell(0)
        found: list[tuple[Culprits, int]] = []
        for job, numbers, storage in zip(self.jobs, usable, storages, strict=True):
            packed, culprits = pack(job, numbers, self.wanted, storage, partial, tell)
            found.append((culprits, len(numbers)))
            tracks |= packed
        notes += self._judge(found)
        self._check_tracks(tracks)
        SpeechManifest(
            self.config.sample_rate, tracks, self.config.name.replace("_", " "), (*self.notes, *notes), self.identity()
        ).write(partial)
        for path in (partial / PLAN, *partial.glob("*.done")):
            path.unlink(missing_ok=True)

    def _look(self) -> tuple[list[list[int]], list[str], list[str]]:
        """Of each job the items that can be used and the storage of its tracks, and notes. Raises DataError."""
        with ThreadPoolExecutor(max(8, available_cores())) as threads:
            found = [scan(job, self.wanted, threads) for job in self.jobs]
        notes = self._judge([(one.culprits, len(job.names)) for job, one in zip(self.jobs, found, strict=True)])
        usable = [[number for number, good in enumerate(one.usable) if good] for one in found]
        storages = [
            job.storage or self.config.storage or ("int16" if one.exact else "float32")
            for job, one in zip(self.jobs, found, strict=True)
        ]
        return usable, storages, notes

    def _judge(self, found: Sequence[tuple[Culprits, int]]) -> list[str]:
        """Of each job the culprits and the number of its items -> notes on them. Raises DataError where none may be."""
        joined, total = Culprits(), sum(count for _, count in found)
        for culprits, _ in found:
            joined.join(culprits)
        if not joined.count:
            return []
        if not self.config.leave_out:
            raise joined.error(self.config.name, total, self.wanted)
        note = f"{joined.count} of {total} files left out: {joined}"
        _LOG.warning("%s: %s", self.config.name, note)
        return [note]

    def _check_tracks(self, tracks: Mapping[str, PackedTrack]) -> None:
        empty = [name for name, track in tracks.items() if not track.names]
        if empty:
            raise DataError(
                f"no usable file is left for {', '.join(empty)}",
                expected="at least one",
                remedy="set data.leave_out=false to see what is wrong with each",
            )


def _jobs(config: PreparedSpeechConfig) -> list[Job]:
    if isinstance(config, MixSpeechConfig):
        return mix_jobs(config)
    if isinstance(config, PairsSpeechConfig):
        return folder_jobs(config)
    if isinstance(config, VoiceBankConfig):
        return voicebank_jobs(config)
    if isinstance(config, EarsWhamConfig):
        return ears_wham_jobs(config)
    return chime_jobs(config) if isinstance(config, Wsj0ChimeConfig) else reverb_jobs(config)


def _stamps(job: Job) -> list[Any]:
    """Names, sizes and times of change of a job's files."""
    paths = [path for files in job.files for path in files]
    stats = [path.stat() for path in paths]
    return [*job.names, *((str(p), s.st_size, s.st_mtime_ns) for p, s in zip(paths, stats, strict=True))]


def prepare_speech(
    config: PreparedSpeechConfig,
    cache: Path | None = None,
    *,
    progress: Progress | None = None,
    verify: bool = False,
) -> Path:
    """The folder of prepared sound; made if it is not there, at once if it is.

    Args:
        config: which files, what they are brought to, what is held out.
        cache: parent of all prepared folders; `config.cache` wins over it (None: `default_cache()`).
        progress: told how far it is.
        verify: also read every byte of what is there already and compare hashes; damaged data is made again.

    Raises:
        DataError: missing, unpaired or unsuitable files (all in one message), a missing package, a full disk.
    """
    job = SpeechJob.open(config)
    tell = progress or (lambda done, total: None)
    return make_once(
        (config.cache or cache or default_cache()) / job.key,
        lambda folder: _complete(folder, verify),
        lambda partial: job.build(partial, tell),
    )


def _complete(folder: Path, verify: bool) -> bool:
    """Whether a prepared folder holds what its manifest says; with `verify` every byte is read."""
    if not (folder / MANIFEST).exists():
        return False
    try:
        SpeechManifest.read(folder).check(folder, hashes=verify)
    except DataError:
        return False
    return True
