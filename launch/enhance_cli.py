"""`generative enhance`: noisy files in, enhanced files out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import Workers


class Channel(StrEnum):
    """What is done with files of several channels."""

    REFUSE = "refuse"
    FIRST = "first"
    MEAN = "mean"


class Weights(StrEnum):
    """Which weights."""

    EMA = "ema"
    TRAINED = "trained"


def enhance(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Run, checkpoint, exported or imported folder, or a published .ckpt.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN", help="A wav or flac file, or a folder with any below it.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The result's file, or a folder for them.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="a.b=c", help="Further settings, such as method.sampling.snr=0.33 launch.gpus_per_worker=1."
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="predictor_corrector, exponential, bridge_ode, ...; see method.sampling.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler (N).")] = None,
    limit: Annotated[
        float | None, typer.Option("--attenuation-limit", min=0, metavar="DB", help="Take away at most so many dB.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise; each file also has its own, by its name.")] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Files at once; results do not depend on it.")
    ] = 8,
    weights: Annotated[Weights, typer.Option(help="Averaged weights, or those as trained.")] = Weights.EMA,
    resample: Annotated[
        bool, typer.Option("--resample", help="Also take files whose rate is not the model's.")
    ] = False,
    channel: Annotated[Channel, typer.Option(help="What to do with files of several channels.")] = Channel.REFUSE,
    workers: Workers = None,
) -> None:
    """Take noise (or reverberation) out of recordings. A folder's results keep their paths; given again, it goes on.

    If something is wrong with a file, it is reported and the others go on; the exit code is then 1.

    Example: generative enhance runs/sgmse/quickstart noisy/ enhanced/ --steps 10
    """
    from launch.asked import as_changes, asked_launch, split_overrides
    from launch.console import Console, bar_progress
    from launch.enhancing import RECORD, Asked, enhance_files
    from launch.outcomes import tell_outcome
    from launch.sections import LaunchConfig

    launch_overrides, others = split_overrides(overrides or [], ("method.sampling",))
    options = {
        "method.sampling.sampler": sampler,
        "method.sampling.steps": steps,
        "method.sampling.attenuation_limit": limit,
    }
    changes = {key: value for key, value in options.items() if value is not None} | as_changes(others)
    launch = asked_launch(LaunchConfig(), launch_overrides, workers)
    asked = Asked(model, source, target, changes, weights.value, seed, batch_size, resample, channel.value)
    console = Console()
    found = enhance_files(asked, launch, console.line, bar_progress(console, "enhance"))
    console.end_progress()
    for line in found.done:
        if line.get("note"):
            console.line("note", f"{line['file']}: {line['note']}")
    speed = f"{found.audio:.1f} s of sound in {found.seconds:.1f} s (real time factor {found.factor:.2f})"
    tell_outcome(console, "enhance", "enhanced", found, [speed, f"{found.calls:g} network calls a file"])
    where = f"{target} ({RECORD} has a line for each)" if source.is_dir() else str(target)
    console.line("written", where if found.done or found.kept else "nothing")
    if found.report is not None:
        console.line("report", str(found.report))
    raise typer.Exit(1 if found.failed else 0)
