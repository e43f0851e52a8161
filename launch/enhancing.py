"""`generative enhance`: files of noisy speech in, files of enhanced speech out; resumable, one by one or over Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from generative.data.speech_files import Signal, Wanted, read_signal, read_sound, resampled, sound_bytes
from generative.data.speech_wave import Sound, UnusableError
from generative.errors import DataError, ResourceError
from generative.methods.sgmse.enhancer import EnhancedWave
from generative.methods.sgmse.sampling import sampler_text
from generative.randomness import Streams
from generative.training.runfolder import append_line, read_lines, replace_file
from launch.enhance_files import File, check_folder, list_files, not_written, writing
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

NO_MEMORY = "too long for the memory of this machine (give a part of it, or a smaller --batch-size)"
NOT_FINITE = "the sampler left the range of numbers (give more --steps, or another --sampler)"

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


def enhance_files(asked: Asked, launch: LaunchConfig | None, say: Say, progress: Progress) -> Enhanced:
    """Enhance what is not there yet; what is wrong with a file is told, and the rest goes on (on a full disk too).

    Raises:
        ConfigError, CheckpointError, DataError, ResourceError: before anything is written.
    """
    begun = time.perf_counter()
    files = list_files(asked.source, asked.target)
    model = open_model(asked.model, asked.changes, asked.weights)
    say("model", f"{model.about}; {model.config.sample_rate} Hz")
    check_folder(asked.target if asked.source.is_dir() else files[0].target.parent)
    settings = _settings(asked, model)
    folder = _record_folder(asked)
    known = {line["file"]: line for line in read_lines(folder / RECORD)} if folder is not None else {}
    todo = [file for file in files if not _is_done(file, known.get(file.name), settings, asked.channel)]
    ordered = sorted(todo, key=lambda file: (file.stamp[:1], file.name))
    if launch is None:
        lines = _Worker(asked, model, settings)(ordered, progress)
    else:
        work = [ordered[first:last] for first, last in parts(len(ordered), 4 * launch.workers, 8 * asked.batch_size)]
        log = (folder or asked.target.parent) / "enhance_ray.log"
        found = map_items(work, partial(_worker, asked), launch, log, in_files(progress, work))
        lines = [line for part in found for line in part]
    done = [line for line in lines if "failed" not in line]
    failed = [f"{line['file']}: {line['failed']}" for line in lines if "failed" in line]
    report = None
    if folder is not None:
        try:
            report = _report(asked, model, folder, files)
        except ResourceError as error:
            failed.append(f"report: {not_written(error)}")
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
        sounds: dict[File, Sound] = {}
        signals: list[Signal] = []
        lines: list[dict[str, Any]] = []
        for file in files:
            try:
                sound = read_sound(file.source)
                signals.append(read_signal(file.source, self._wanted))
                sounds[file] = sound
            except (UnusableError, DataError, MemoryError) as error:
                lines.append(self._failed(file, self._reason(error)))
        begun = time.perf_counter()
        found = self._enhanced(list(sounds), signals)
        seconds = (time.perf_counter() - begun) / max(1, len(signals))
        for (file, sound), noisy, one in zip(sounds.items(), signals, found, strict=True):
            if isinstance(one, str):
                lines.append(self._failed(file, one))
                continue
            audio = len(noisy) / self._wanted.rate
            try:
                note = self._write(file, one.wave.numpy(), noisy, sound)
                lines.append(self._told(file, audio=audio, seconds=seconds, calls=one.calls, **note))
            except ResourceError as error:
                # Where only the record has no room, the next command makes the file again.
                lines.append(self._failed(file, not_written(error)))
        return lines

    def _failed(self, file: File, reason: str) -> dict[str, Any]:
        """The line of a file without a result, recorded where there is room for that."""
        with contextlib.suppress(ResourceError):
            return self._told(file, failed=reason)
        return {"file": file.name, "failed": reason}

    def _enhanced(self, files: Sequence[File], signals: Sequence[Signal]) -> list[EnhancedWave | str]:
        """Each file's result, or why there is none. Where all at once need too much memory, each is done alone."""
        waves = [torch.from_numpy(signal) for signal in signals]
        try:
            found = self._enhancer.enhance(waves, [file.number for file in files], self._streams)
        except (MemoryError, RuntimeError) as error:
            if not _of_memory(error):
                raise
            if len(files) == 1:
                return [NO_MEMORY]
        else:
            return [one if torch.isfinite(one.wave).all() else NOT_FINITE for one in found]
        return [self._enhanced([file], [signal])[0] for file, signal in zip(files, signals, strict=True)]

    def _reason(self, error: UnusableError | DataError | MemoryError) -> str:
        """Why a file cannot be enhanced, with the remedy where it is an option of the command."""
        if isinstance(error, MemoryError):
            return NO_MEMORY
        reason = error.problem if isinstance(error, DataError) else str(error)
        if " Hz, not " in reason:
            return f"{reason} (give --resample)"
        return f"{reason} (give --channel first, or mean)" if reason.endswith("channels") else reason

    def _told(self, file: File, **what: Any) -> dict[str, Any]:
        line = {"file": file.name, "source": file.stamp, "settings": self._stamp, **what}
        folder = _record_folder(self._asked)
        if folder is not None:
            with writing(folder / RECORD):
                folder.mkdir(parents=True, exist_ok=True)
                append_line(folder / RECORD, line)
        return line

    def _write(self, file: File, wave: Signal, noisy: Signal, sound: Sound) -> dict[str, Any]:
        """Write the result at the rate of the source, whole or not at all; what is to be told about it."""
        wave = resampled(wave, self._wanted.rate, sound.rate)[: sound.frames]
        loudest, note = float(np.abs(wave).max(initial=0.0)), dict[str, Any]()
        if sound.channels > 1:
            note["channel"] = self._asked.channel
        # Files of floats may go beyond full scale, and are whole then.
        whole = not sound.integers and float(np.abs(noisy).max(initial=0.0)) > 1.0
        if not whole and int((np.abs(noisy) >= CLIPPED).sum()) >= CLIPPED_SAMPLES:
            note["note"] = "the noisy file is clipped"
        if loudest > 1.0:
            wave = (wave / loudest).astype(np.float32)
            quieter = f"made quieter by {20 * np.log10(loudest):.1f} dB, to full scale"
            note["note"] = "; ".join(filter(None, [note.get("note"), quieter]))
        with writing(file.target):
            file.target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file.target, sound_bytes(wave, sound.rate, file.target.suffix), durable=False)
        return note


def _of_memory(error: Exception) -> bool:
    """Whether there was not enough memory; torch has no error of its own for that of the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
