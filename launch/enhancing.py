"""`generative enhance`: files of noisy speech in, files of enhanced speech out; resumable, one by one or over Ray."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from generative.data.speech_files import (
    SUFFIXES,
    Signal,
    Wanted,
    find_sounds,
    read_signal,
    read_sound,
    resampled,
    sound_bytes,
)
from generative.data.speech_wave import UnusableError
from generative.errors import ConfigError, DataError, ResourceError
from generative.methods.sgmse.sampling import sampler_text
from generative.randomness import Streams
from generative.training.runfolder import append_line, explain, read_lines, replace_file
from launch.enhance_model import EnhanceModel, open_model
from launch.enhance_report import Made, write_enhancement_report
from launch.opened import Changes
from launch.ray_map import map_items, parts
from launch.sections import LaunchConfig

RECORD = "enhance.jsonl"
"""In the folder of results: a line for each file that is done, or that could not be."""
CLIPPED = 0.999
"""Part of full scale from which samples count as clipped."""
CLIPPED_SAMPLES = 8
"""As many of them in a file are told."""

Progress = Callable[[int, int], None]
Say = Callable[[str, str], None]


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; see `launch.enhance_cli`."""

    model: str
    source: Path
    target: Path
    changes: Changes
    weights: str = "ema"
    seed: int = 0
    batch_size: int = 8
    resample: bool = False
    channel: Literal["refuse", "first", "mean"] = "refuse"


@dataclass(frozen=True)
class File:
    """One file to enhance; `name`: its path below the folder that was given, which addresses its noise."""

    name: str
    source: Path
    target: Path

    @property
    def number(self) -> int:
        """Sample id of its noise, the same on every machine: the name without the suffix decides."""
        stem = Path(self.name).with_suffix("").as_posix()
        return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:7], "big")

    @property
    def stamp(self) -> list[int]:
        """Size and time of the source, by which a change is seen."""
        found = self.source.stat()
        return [found.st_size, found.st_mtime_ns]


@dataclass(frozen=True)
class Enhanced:
    """What came of a command.

    Args:
        done: records of files enhanced now.
        kept: number of files that were there already.
        failed: "name: reason".
        seconds: of the whole work.
        report: the page, where a folder was enhanced.
    """

    done: Sequence[dict[str, Any]]
    kept: int
    failed: Sequence[str]
    seconds: float
    report: Path | None = None

    @property
    def audio(self) -> float:
        """Seconds of sound enhanced now."""
        return float(sum(line["audio"] for line in self.done))

    @property
    def factor(self) -> float:
        """Real time factor: seconds of enhancing (without files and start) for a second of sound, in one worker."""
        return float(sum(line["seconds"] for line in self.done)) / max(self.audio, 1e-9)

    @property
    def calls(self) -> float:
        """Network calls of a file, on average."""
        return float(sum(line["calls"] for line in self.done)) / max(1, len(self.done))


def list_files(source: Path, target: Path) -> list[File]:
    """What is to be enhanced, and where to.

    Raises:
        DataError, ConfigError: nothing there, another suffix, or a result that would replace its source.
    """
    if source.is_dir():
        if target.is_file():
            raise ConfigError(f"{target} is a file, but {source} is a folder", "a folder for the results", "name one")
        names = [path.relative_to(source).as_posix() for path in find_sounds(source, "IN")]
        files = [File(name, source / name, target / name) for name in names]
    elif source.is_file():
        for path in (source, target):
            if path.suffix.lower() not in SUFFIXES and not (path == target and path.is_dir()):
                raise ConfigError(
                    f"{path}: no wav or flac file",
                    f"a name that ends with {' or '.join(SUFFIXES)}",
                    "correct the name, or convert the file first",
                )
        files = [File(source.name, source, target / source.name if target.is_dir() else target)]
    else:
        raise DataError(f"{source}: no such file or folder", "a wav or flac file, or a folder of them", "correct IN")
    if any(file.source.resolve() == file.target.resolve() for file in files):
        raise ConfigError(
            f"{target}: the results would replace the noisy files", "another place", "name another folder as OUT"
        )
    return files


def enhance_files(asked: Asked, launch: LaunchConfig | None, say: Say, progress: Progress) -> Enhanced:
    """Enhance what is not there yet; what is wrong with a file is told, and the rest goes on.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is written.
        ResourceError: the results cannot be written (a full disk); nothing is half-written.
    """
    begun = time.perf_counter()
    files = list_files(asked.source, asked.target)
    model = open_model(asked.model, asked.changes, asked.weights)
    say("model", f"{model.about}; {model.config.sample_rate} Hz")
    settings = _settings(asked, model)
    folder = _record_folder(asked)
    known = {line["file"]: line for line in read_lines(folder / RECORD)} if folder is not None else {}
    todo = [file for file in files if not _is_done(file, known.get(file.name), settings, asked.channel)]
    ordered = sorted(todo, key=lambda file: (file.source.stat().st_size, file.name))
    if launch is None:
        lines = _Worker(asked, model, settings)(ordered, progress)
    else:
        work = [ordered[first:last] for first, last in parts(len(ordered), 4 * launch.workers, 8 * asked.batch_size)]
        log = (folder or asked.target.parent) / "enhance_ray.log"
        found = map_items(work, partial(_worker, asked), launch, log, in_files(progress, work))
        lines = [line for part in found for line in part]
    done = [line for line in lines if "failed" not in line]
    failed = [f"{line['file']}: {line['failed']}" for line in lines if "failed" in line]
    report = None if folder is None else _report(asked, model, folder, files)
    return Enhanced(done, len(files) - len(todo), failed, time.perf_counter() - begun, report)


def _report(asked: Asked, model: EnhanceModel, folder: Path, files: Sequence[File]) -> Path:
    """The page about all results that are there now, of this command and of earlier ones."""
    newest = {line["file"]: line for line in read_lines(folder / RECORD)}
    made = Made(model.about, sampler_text(model.config), _wanted(asked, model), RECORD)
    sources = {file.name: file.source for file in files}
    return write_enhancement_report(folder, made, sources, [newest[name] for name in sources if name in newest])


def in_files(progress: Progress, work: Sequence[Sequence[File]]) -> Progress:
    """Progress of parts of the files as progress of files."""
    total = sum(map(len, work))
    return lambda done, items: progress(sum(map(len, work[:done])), total)


def _record_folder(asked: Asked) -> Path | None:
    """Where results of a folder are recorded; a single file has no record."""
    return asked.target if asked.source.is_dir() else None


def _settings(asked: Asked, model: EnhanceModel) -> str:
    """What decides the results besides the files (and the channel, of those that have several)."""
    return f"{model.fingerprint}/{asked.seed}"


def _is_done(file: File, line: dict[str, Any] | None, settings: str, channel: str) -> bool:
    if line is None or "failed" in line or not file.target.is_file():
        return False
    return (line.get("settings"), line.get("source")) == (settings, file.stamp) and line.get("channel") in (
        None,
        channel,
    )


def _worker(asked: Asked) -> Callable[[Sequence[File]], list[dict[str, Any]]]:
    """Enhances parts of the files with a model that is opened now (by an actor)."""
    model = open_model(asked.model, asked.changes, asked.weights)
    return _Worker(asked, model, _settings(asked, model))


def _wanted(asked: Asked, model: EnhanceModel) -> Wanted:
    """How noisy files are read."""
    return Wanted(model.config.sample_rate, asked.resample, asked.channel, 0.0)


class _Worker:
    """Enhances files in batches and writes each as soon as it is done."""

    def __init__(self, asked: Asked, model: EnhanceModel, settings: str) -> None:
        self._asked, self._model, self._stamp = asked, model, settings
        self._enhancer = model.enhancer(asked.batch_size)
        self._streams = Streams(asked.seed).within("enhance")
        self._wanted = _wanted(asked, model)

    def __call__(self, files: Sequence[File], progress: Progress = lambda done, total: None) -> list[dict[str, Any]]:
        """A line for each file."""
        lines: list[dict[str, Any]] = []
        size = self._asked.batch_size
        for start in range(0, len(files), size):
            lines += self._batch(files[start : start + size])
            progress(min(start + size, len(files)), len(files))
        return lines

    def _batch(self, files: Sequence[File]) -> list[dict[str, Any]]:
        signals: dict[File, Signal] = {}
        lines: list[dict[str, Any]] = []
        for file in files:
            try:
                signals[file] = read_signal(file.source, self._wanted)
            except (UnusableError, DataError) as error:
                lines.append(self._told(file, failed=self._reason(error)))
        begun = time.perf_counter()
        waves = [torch.from_numpy(signal) for signal in signals.values()]
        found = self._enhancer.enhance(waves, [file.number for file in signals], self._streams)
        seconds = (time.perf_counter() - begun) / max(1, len(signals))
        for (file, noisy), one in zip(signals.items(), found, strict=True):
            note = self._write(file, one.wave.numpy(), noisy)
            audio = len(noisy) / self._wanted.rate
            lines.append(self._told(file, audio=audio, seconds=seconds, calls=one.calls, **note))
        return lines

    def _reason(self, error: UnusableError | DataError) -> str:
        """Why a file cannot be enhanced, with the remedy where it is an option of the command."""
        reason = error.problem if isinstance(error, DataError) else str(error)
        if " Hz, not " in reason:
            return f"{reason} (give --resample)"
        return f"{reason} (give --channel first, or mean)" if reason.endswith("channels") else reason

    def _told(self, file: File, **what: Any) -> dict[str, Any]:
        line = {"file": file.name, "source": file.stamp, "settings": self._stamp, **what}
        folder = _record_folder(self._asked)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            append_line(folder / RECORD, line)
        return line

    def _write(self, file: File, wave: Signal, noisy: Signal) -> dict[str, Any]:
        """Write the result at the rate of the source, whole or not at all; what is to be told about it."""
        sound = read_sound(file.source)
        wave = resampled(wave, self._wanted.rate, sound.rate)[: sound.frames]
        loudest, note = float(np.abs(wave).max(initial=0.0)), dict[str, Any]()
        if sound.channels > 1:
            note["channel"] = self._asked.channel
        if int((np.abs(noisy) >= CLIPPED).sum()) >= CLIPPED_SAMPLES:
            note["note"] = "the noisy file is clipped"
        if loudest > 1.0:
            wave = (wave / loudest).astype(np.float32)
            quieter = f"made quieter by {20 * np.log10(loudest):.1f} dB, to full scale"
            note["note"] = "; ".join(filter(None, [note.get("note"), quieter]))
        try:
            file.target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file.target, sound_bytes(wave, sound.rate, file.target.suffix), durable=False)
        except OSError as error:
            raise ResourceError(*explain(error, f"write {file.target}")) from error
        return note
