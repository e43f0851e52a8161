"""`report.html` beside enhanced files: what there is to hear, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.enhancement_report import EnhancementFacts, Heard, build_enhancement_report
from evaluation.quantities import duration
from generative.data.speech_files import Wanted, read_signal
from generative.data.speech_pictures import spectrogram_png
from generative.data.speech_wave import UnusableError, wave_bytes
from generative.errors import DataError
from generative.training.runfolder import replace_file
from launch.enhance_files import writing

REPORT = "report.html"
LISTENED = 6
"""Files to listen to, evenly over all by name."""
SECONDS = 8.0
"""Of a longer file as many are heard, from its middle."""


@dataclass(frozen=True)
class Made:
    """How results were made.

    Args:
        model: what it is, in a few words.
        sampler: its name and settings, as written.
        wanted: how noisy files were read.
        record: name of the file that has a line for each.
    """

    model: str
    sampler: str
    wanted: Wanted
    record: str


def write_enhancement_report(
    folder: Path, made: Made, sources: Mapping[str, Path], lines: Sequence[Mapping[str, Any]]
) -> Path:
    """Write the page; files that cannot be read any more are left out of what is heard.

    Args:
        folder: of the results, which have the names of their sources.
        made: how.
        sources: noisy file of each name.
        lines: the newest record of each file.

    Raises:
        ResourceError: it cannot be written; an older page stays.
    """
    lines = sorted(lines, key=lambda line: str(line["file"]))
    done = [line for line in lines if "failed" not in line]
    picked = [done[round(x)] for x in np.linspace(0, len(done) - 1, min(LISTENED, len(done)))]
    heard = [_heard(str(line["file"]), sources[line["file"]], folder / line["file"], made.wanted) for line in picked]
    told = EnhancementFacts(
        model=made.model,
        facts=_facts(made, done),
        heard=[one for one in heard if one],
        files=[_row(line) for line in done],
        failed=[[str(line["file"]), str(line["failed"])] for line in lines if "failed" in line],
        record=made.record,
    )
    path = folder / REPORT
    with writing(path):
        replace_file(path, build_enhancement_report(told).encode(errors="replace"), durable=False)
    return path


def _facts(made: Made, done: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    audio, seconds = (sum(line[key] for line in done) for key in ("audio", "seconds"))
    calls = sum(line["calls"] for line in done) / max(1, len(done))
    return {
        "Sampler": made.sampler,
        "Rate": f"{made.wanted.rate:,} Hz",
        "Sound": duration(audio),
        "Real time factor": f"{seconds / max(audio, 1e-9):.2f}",
        "Network calls a file": f"{calls:g}",
    }


def _row(line: Mapping[str, Any]) -> list[str]:
    factor = line["seconds"] / max(line["audio"], 1e-9)
    return [str(line["file"]), f"{line['audio']:.1f} s", f"{line['calls']:g}", f"{factor:.2f}", line.get("note", "")]


def _heard(name: str, source: Path, result: Path, wanted: Wanted) -> Heard | None:
    """Both sounds at the model's rate, quieter by one factor where one of them would be clipped."""
    try:
        both = [read_signal(path, replace(wanted, resample=True, min_seconds=0.0)) for path in (source, result)]
    except (UnusableError, DataError):
        return None
    frames, most = min(map(len, both)), round(SECONDS * wanted.rate)
    first = max(0, (frames - most) // 2)
    cut = [signal[first : min(frames, first + most)] for signal in both]
    part = f", seconds {first / wanted.rate:.1f} to {(first + most) / wanted.rate:.1f}" if frames > most else ""
    factor = max(1.0, max(float(np.abs(signal).max(initial=0.0)) for signal in cut) / 0.99)
    noisy, enhanced = (wave_bytes(signal / factor, wanted.rate) for signal in cut)
    return Heard(f"{name}{part}", noisy, enhanced, spectrogram_png(cut, wanted.rate))
