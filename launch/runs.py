"""Sampling and evaluating a finished (or stopped) run, in this process or by Ray workers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from generative.errors import ConfigError
from generative.training.checkpoint import open_checkpoint
from generative.training.runfolder import write_json
from launch.asked import as_changes, asked_launch, split_overrides
from launch.modality import AskedSamples, Progress, modality
from launch.opened import Changes, OpenRun, open_run, read_config, run_folder_of
from launch.schema import RunConfig

__all__ = ["OpenRun", "evaluate_run", "open_run", "read_config", "sample_run", "samples_shown"]

RECORD = "evaluation.json"
"""The evaluation that stands for the run, in its folder."""


def sample_run(
    path: str | Path,
    *,
    prompt: str | None = None,
    infill: str | None = None,
    label: Sequence[int | str] | None = None,
    count: int | None = None,
    length: int | None = None,
    steps: int | None = None,
    temperature: float | None = None,
    order: str | None = None,
    seed: int | None = None,
    workers: int | None = None,
    out: Path | None = None,
    tokenizer: str = "",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw from a run; the items of a samples file, which is also written to <run>/samples/asked/.

    Args:
        path: run folder or checkpoint folder, or a folder that `generative export` or `import` wrote.
        prompt: text that each sample begins with.
        infill: text with one "▁" for each token to fill in; gives infillings instead of samples, one if no `count` is.
        label: classes to draw, by number or name, in turn (of a model that is told classes).
        count, length, seed: as in the section `sample`.
        steps, temperature, order: as in `method.sampling` (order is its `name`).
        workers: draw with so many Ray workers; None draws in this process.
        out, tokenizer: of an exported model, see `sample_exported`.
        overrides: further `a.b=c` of the sections sample, method.sampling and launch.
        progress: told the samples that are done, and all, where workers draw.
    """
    from launch.exported_samples import is_exported, sample_exported

    if prompt is not None and infill is not None:
        raise ConfigError(
            f"--prompt {prompt!r} with --infill", "one of the two", "write the beginning into the text of --infill"
        )
    options = {
        "sample.count": 1 if infill is not None and count is None else count,
        "sample.length": length,
        "sample.seed": seed,
        "method.sampling.steps": steps,
        "method.sampling.temperature": temperature,
        "method.sampling.name": order,
    }
    launch_overrides, others = split_overrides(overrides, ("sample", "method.sampling"))
    if is_exported(path):
        if workers is not None or launch_overrides:
            raise ConfigError(
                f"workers for {path}, an exported model", "one process", "leave them out, or sample the run itself"
            )
        changes = _given(options) | as_changes(others)
        return sample_exported(path, AskedSamples(prompt, infill), label, changes, out, tokenizer)
    for option, given, why in (("out", out, "keeps its samples itself"), ("tokenizer", tokenizer, "has its own")):
        if given:
            raise ConfigError(
                f"--{option} {given} with {path}, a run, which {why}", "an exported model", f"leave out --{option}"
            )
    own = read_config(run_folder_of(path))
    changes = dict(modality(own).WHEN_ASKED) | _classes(own, label) | _given(options) | as_changes(others)
    run = open_run(path, changes)
    launch = asked_launch(run.config.launch, launch_overrides, workers)
    drawn = modality(run.config).draw(run, AskedSamples(prompt, infill), launch, changes, progress)
    write_json(run.folder / "samples" / "asked" / f"step_{run.checkpoint.step:06d}.json", drawn)
    return drawn


def samples_shown(path: str | Path, drawn: Mapping[str, Any]) -> list[str]:
    """What `sample_run` drew, as the terminal shows it."""
    from launch.exported_samples import is_exported, shown

    return shown(drawn) if is_exported(path) else modality(read_config(run_folder_of(path))).shown(drawn)


def _classes(own: RunConfig, label: Sequence[int | str] | None) -> dict[str, Any]:
    if not label:
        return {}
    from launch.image_labels import label_options

    return label_options(own, label)


def _given(options: Changes) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def evaluate_run(
    path: str | Path,
    *,
    windows: int | None = None,
    draws: int | None = None,
    weights: str | None = None,
    workers: int | None = None,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    on_written: Callable[[Path], object] = lambda path: None,
) -> dict[str, Any]:
    """Evaluate a run's newest checkpoint, or the one given; returns what is written into the run folder.

    The newest checkpoint with the run's own settings gives evaluation.json and a new report. Anything else goes to
    evaluations/, named by step and settings, so that the run's record stays as it is.

    Args:
        path: run folder or checkpoint folder.
        windows, draws, weights: as in the section `evaluate`.
        workers: share the windows out over so many Ray workers; None evaluates in this process.
        overrides: further `a.b=c` of the sections evaluate, method.sampling and launch.
        progress: told the windows that are done, and all.
        on_written: told the file.
    """
    launch_overrides, others = split_overrides(overrides, ("evaluate", "method.sampling"))
    options = {"evaluate.windows": windows, "evaluate.draws": draws, "evaluate.weights": weights}
    changes = _given(options) | as_changes(others)
    run = open_run(path, changes)
    launch = asked_launch(run.config.launch, launch_overrides, workers)
    figures = modality(run.config).measure(run, launch, changes, progress)
    place = run.folder / _record_name(run, read_config(run.folder))
    write_json(place, figures)
    on_written(place)
    if place.name == RECORD:
        from evaluation.report import write_report

        write_report(run.folder)
    return figures


def _record_name(run: OpenRun, own: RunConfig) -> str:
    """Where an evaluation goes: `RECORD`, or evaluations/step_000040_windows_4.json for another step or settings."""
    sampling = getattr(run.config.method, "sampling", None)
    sections = [(run.config.evaluate, own.evaluate, modality(run.config).RECORD_KEYS)]
    if sampling is not None:
        sections.append((sampling, own.method.sampling, tuple(type(sampling).model_fields)))
    differing = [
        f"{key}_{_in_a_name(getattr(asked, key))}"
        for asked, before, keys in sections
        for key in keys
        if getattr(asked, key) != getattr(before, key)
    ]
    if run.best:
        return f"evaluations/{_file_stem(['best', *differing])}.json"
    newest = open_checkpoint(run.folder, verify=False).step
    if not differing and run.checkpoint.step == newest:
        return RECORD
    return f"evaluations/{_file_stem([f'step_{run.checkpoint.step:06d}', *differing])}.json"


def _file_stem(parts: Sequence[str]) -> str:
    """Parts of a name as one that file systems take (255 bytes, with room for an ending); a long one ends with a hash,
    so that other settings have another name."""
    stem = "_".join(parts)
    data = stem.encode()
    return stem if len(data) <= 200 else f"{data[:180].decode(errors='ignore')}_{_mark(stem)}"


def _in_a_name(value: Any) -> str:
    """A setting as a part of a file name: of a path or a name on the hub the last part; of a long one the end, with a
    hash of it all."""
    if value is None:
        return "all"
    text = "-".join(map(str, value)) if isinstance(value, tuple) else Path(str(value)).name
    short = re.sub(r"[^\w.-]+", "-", text)
    return short if len(short) <= 60 else f"{short[-47:]}-{_mark(text)}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
