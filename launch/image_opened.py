"""A run that makes images, opened again: pictures and figures that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generative.errors import ConfigError
from launch.image_checks import check_counts, check_figures, check_reference
from launch.image_evaluation import (
    STREAMS,
    Part,
    Subject,
    companion_of,
    reference_of,
    reference_scorer,
    sampler_of,
    scorer,
    subject_of,
    summary,
)
from launch.image_labels import asked_data
from launch.image_progress import EvaluationProgress
from launch.image_samples import COMPANION, look, sample_streams
from launch.modality import AskedSamples, Progress, refuse_text
from launch.opened import Changes, OpenRun
from launch.reconstructions import check_originals, kind_of_samples
from launch.sections import LaunchConfig


def draw(
    run: OpenRun, asked: AskedSamples, launch: LaunchConfig | None, changes: Changes, progress: Progress | None
) -> dict[str, Any]:
    """A grid of samples in <run>/samples/asked, beside their nearest training images."""
    if run.data.captioned is None:
        refuse_text(asked, "makes images", "--count and --seed choose the samples")
    refuse_text(replace(asked, prompt=None), "makes images", "--prompt is what they are told")
    if asked.prompt is not None and launch is not None:
        raise ConfigError(
            "--prompt with workers", "a file of prompts", "write it to a file.txt, and set sample.prompts=file.txt"
        )
    data = asked_data(run, asked.prompt)
    check_originals(run.method, data, run.config.evaluate, measured=False)
    settings, worn, beside = run.config.sample, run.worn(run.config.sample.weights), None
    if launch is None:
        nets, _ = run.networks(settings.weights)
        drawn = (run.method, nets, run.device, sample_streams(settings.seed), data)
        sample, beside = sampler_of(*drawn), companion_of(*drawn)
    else:
        from launch.image_actors import sampler_with

        sample = sampler_with(run, launch, changes, progress)
    singly = bool(data.captioned or data.asked_labels)
    made = kind_of_samples(run.method)
    found = look(settings, data, sample, worn, run.checkpoint.step, beside, singly, made)
    found.write(run.folder / "samples" / "asked")
    return found.record | {"folder": str(run.folder / "samples" / "asked")}


def shown(drawn: Mapping[str, Any]) -> list[str]:
    """Where the pictures are; those of another model have a title that says whose they are."""
    weights = f" ({drawn['model']} weights, step {drawn['step']})"
    return [
        f"{item['title']}{'' if item['file'].endswith(COMPANION) else weights}: {Path(drawn['folder']) / item['file']}"
        for item in drawn["items"]
    ]


def measure(run: OpenRun, launch: LaunchConfig | None, changes: Changes, progress: Progress | None) -> dict[str, Any]:
    """Figures of fresh samples against real ones."""
    settings = run.config.evaluate
    check_figures(run.config, run.data)
    if run.data.kind == "image":
        check_reference(run.config, run.data)
        check_counts(run.config, run.data, settings.metrics)
        check_originals(run.method, run.data, settings, measured=True)
    nets: Mapping[str, nn.Module] = {} if launch is not None else run.networks(settings.weights)[0]
    sample = _not_here if launch is not None else sampler_of(run.method, nets, run.device, STREAMS, run.data)
    subject = subject_of(run.config, run.method, run.data, sample, run.device, run.folder)
    if launch is not None:
        from launch.image_actors import parts_with

        generated, reference = parts_with(run, subject, launch, changes, progress)
    else:
        generated, reference = _parts_here(subject, progress)
    return summary(subject, generated, reference, run.worn(settings.weights), run.checkpoint.step)


def _not_here(ids: Tensor) -> Tensor:
    raise AssertionError("samples are drawn by workers")


def _parts_here(subject: Subject, progress: Progress | None) -> tuple[Part, Part | None]:
    """Samples and real images in this process, in pieces, so that progress shows."""
    count, real = subject.settings.samples, len(reference_of(subject.settings, subject.data)[1])
    images = subject.data.kind == "image"
    counted = EvaluationProgress(progress, count + (real if images else 0))

    def whole(score: Callable[[range], Part], number: int, before: int) -> Part:
        found: list[Part] = []
        for start in range(0, number, 10 * subject.settings.batch_size):
            stop = min(start + 10 * subject.settings.batch_size, number)
            found.append(score(range(start, stop)))
            counted.measured(before + stop)
        return reduce(Part.merge, found)

    generated = whole(scorer(subject, counted.training), count, 0)
    return generated, whole(reference_scorer(subject), real, count) if images else None
