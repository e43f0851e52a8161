"""A run that enhances speech, opened again: sounds and figures that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generative.methods.sgmse.sampling import sampler_text
from launch.modality import AskedSamples, Progress, refuse_text
from launch.opened import Changes, OpenRun
from launch.sections import LaunchConfig
from launch.speech_evaluation import Subject, check_figures, enhancer_of, measured, numbers_of, record
from launch.speech_samples import listen


def draw(
    run: OpenRun, asked: AskedSamples, launch: LaunchConfig | None, changes: Changes, progress: Progress | None
) -> dict[str, Any]:
    """Held-out utterances, enhanced, in <run>/samples/asked. A few: they are enhanced here, whatever `launch` says."""
    refuse_text(asked, "enhances speech", "`generative enhance` takes files of sound")
    settings = run.config.sample
    nets, worn = run.networks(settings.weights)
    found = listen(settings, "test", run.data, enhancer_of(run.method, nets), worn, run.checkpoint.step)
    found.write(run.folder / "samples" / "asked")
    return found.record | {"folder": str(run.folder / "samples" / "asked")}


def shown(drawn: Mapping[str, Any]) -> list[str]:
    """Where the sounds are, and how much cleaner they are."""
    lines = []
    for item in drawn["items"]:
        gains = [f"{name} {pair['noisy']:.2f} -> {pair['enhanced']:.2f}" for name, pair in item["figures"].items()]
        lines.append(" · ".join([f"{item['title']}: {Path(drawn['folder']) / item['sounds']['enhanced']}", *gains]))
    return lines


def measure(run: OpenRun, launch: LaunchConfig | None, changes: Changes, progress: Progress | None) -> dict[str, Any]:
    """Figures of held-out utterances."""
    settings = run.config.evaluate
    check_figures(settings, run.data.sample_rate)
    if launch is not None:
        from launch.speech_actors import part_with

        part = part_with(run, launch, changes, progress)
    else:
        nets, _ = run.networks(settings.weights)
        subject = Subject(settings, run.data, enhancer_of(run.method, nets, settings.batch_size))
        numbers = numbers_of(settings, run.data)
        total = len(numbers)

        def tell(files: int) -> None:
            if progress is not None:
                progress(files, total)

        part = measured(subject, numbers, settings.scorers, tell)
    return record(run.data, part, sampler_text(run.config.method), run.worn(settings.weights), run.checkpoint.step)
