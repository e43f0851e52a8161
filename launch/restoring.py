"""`generative restore`: measurements (or images, from which they are simulated) in, posterior samples out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.restoration_report import build_restoration_report
from generative.data.image_files import png
from generative.methods.stsl.methods import method_named, notes, settings_text, with_changes
from generative.methods.stsl.operators.noise import deviation
from generative.methods.stsl.problem import check_sigma
from generative.training.runfolder import read_lines
from launch.enhance_files import File
from launch.enhancing import Progress, Say, in_files
from launch.ray_map import map_items, parts
from launch.restore_files import HELD_OUT, RECORD, REPORT, list_images
from launch.restore_prior import held_out_images
from launch.restore_worker import Line, RestoreAsked, RestoreWorker, restore_worker, write
from launch.sections import LaunchConfig


@dataclass(frozen=True)
class RestoredFiles:
    """What came of a command: records of images done now, number that was there, failures, seconds of it all."""

    done: Sequence[Line]
    kept: int
    failed: Sequence[str]
    seconds: float


def restore_files(asked: RestoreAsked, launch: LaunchConfig | None, say: Say, progress: Progress) -> RestoredFiles:
    """Restore what is not there yet, and write the report; what is wrong with an image is told, the rest goes on.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is written.
        ResourceError: the results cannot be written.
    """
    begun = time.perf_counter()
    settings = with_changes(method_named(asked.method).settings, asked.settings)
    check_sigma(deviation(asked.noise_model, asked.noise))
    held_out = asked.source == Path(HELD_OUT) and not asked.source.exists()
    if held_out:
        asked = replace(asked, source=asked.target / HELD_OUT, simulate=True)
    files = [] if held_out else list_images(asked.source, asked.target)
    worker = restore_worker(asked)
    if held_out:
        wanted = _write_held_out(asked)
        files = [file for file in list_images(asked.source, asked.target) if file.source in wanted]
    say("prior", worker.opened.about)
    say("operator", f"{worker.operator.name}, {_noise(asked)}")
    for note in [*notes(settings, asked.samples), *filter(None, [method_named(asked.method).note])]:
        say("note", note)
    known = {line["file"]: line for line in read_lines(asked.target / RECORD)}
    todo = [file for file in files if not is_done(file, known.get(file.name), worker.stamp)]
    if launch is None:
        lines = worker(todo, progress)
    else:
        work = [todo[first:last] for first, last in parts(len(todo), 4 * launch.workers, worker.at_once)]
        log = asked.target / "restore_ray.log"
        found = map_items(work, partial(restore_worker, asked), launch, log, in_files(progress, work))
        lines = [line for part in found for line in part]
    done = [line for line in lines if "failed" not in line]
    failed = [f"{line['file']}: {line['failed']}" for line in lines if "failed" in line]
    known = {line["file"]: line for line in read_lines(asked.target / RECORD)}
    shown = [known[file.name] for file in files if is_done(file, known.get(file.name), worker.stamp)]
    if shown:
        page = build_restoration_report(asked.target, shown, _facts(asked, worker, settings))
        write(asked.target / REPORT, page.encode(errors="replace"))
    return RestoredFiles(done, len(files) - len(todo), failed, time.perf_counter() - begun)


def _write_held_out(asked: RestoreAsked) -> set[Path]:
    """Held-out images of the prior's data as files in OUT, to be measured and restored; those of this command, beside
    which an earlier one may have left more."""
    wanted = set()
    for number, image in enumerate(held_out_images(asked.prior.name, asked.count)):
        path, data = asked.source / f"{number:04d}.png", png(image)
        if not path.is_file() or path.read_bytes() != data:
            write(path, data)
        wanted.add(path)
    return wanted


def _facts(asked: RestoreAsked, worker: RestoreWorker, settings: Any) -> dict[str, str]:
    return {
        "prior": worker.opened.about,
        "operator": worker.operator.name,
        "noise": _noise(asked),
        "measurements": "simulated from the images" if asked.simulate else "as given",
        "samples": f"{asked.samples} of each, seed {asked.seed}",
        "method": f"{asked.method}: {settings_text(settings)}",
    }


def _noise(asked: RestoreAsked) -> str:
    return f"{asked.noise_model} noise of {asked.noise:g}, images being in [-1, 1]"


def is_done(file: File, line: Line | None, stamp: str) -> bool:
    """Whether results of an image are there, of the same settings and source."""
    if line is None or "failed" in line or (line["settings"], line["source"]) != (stamp, file.stamp):
        return False
    return all((file.target / name).is_file() for name in line["files"])
