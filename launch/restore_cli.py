"""`generative restore`: inverse problems with a diffusion prior."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.enhance_cli import Weights
from launch.run_cli import LaunchOverrides, Workers


class NoiseModel(StrEnum):
    """`operators.noise.Kind`, spelled out so that --help needs no torch."""

    GAUSSIAN = "gaussian"
    POISSON = "poisson"
    SALT_PEPPER = "salt_pepper"


def restore(
    prior: Annotated[
        str, typer.Argument(metavar="PRIOR", help="A run of edm, a folder of diffusers, or hub:OWNER/NAME.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image, a folder with any below it, or held_out.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the results and the report.")],
    overrides: LaunchOverrides = None,
    operator: Annotated[
        str, typer.Option(help="What was measured: superres:factor=4, inpaint:missing=0.7, gaussian_blur, ...")
    ] = "superres:factor=4",
    method: Annotated[str, typer.Option(help="stsl, mmps, dps, psld, daps, ...; an unknown one lists them.")] = "stsl",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a=b", help="A setting of the method: steps=25, weight=0.5, eta=1."),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of the noise (images: [-1, 1]), or as --noise-model says.")
    ] = 0.05,
    noise_model: Annotated[
        NoiseModel,
        typer.Option("--noise-model", help="gaussian; poisson: photons by grey level; salt_pepper: share of numbers."),
    ] = NoiseModel.GAUSSIAN,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="IN holds clean images, which are measured first.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each image.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed; each image and sample also has its own, by the image's name.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Samples drawn at once.")] = 16,
    label: Annotated[int | None, typer.Option(help="Class by number, for a prior that knows classes.")] = None,
    prompt: Annotated[str, typer.Option(help="Text, for a text-to-image prior.")] = "",
    weights: Annotated[Weights, typer.Option(help="Averaged weights of a run, or those as trained.")] = Weights.EMA,
    resize: Annotated[bool, typer.Option("--resize", help="Cut and scale clean images to the prior's size.")] = False,
    count: Annotated[int, typer.Option(min=1, help="How many images of held_out.")] = 12,
    checkpoint_decoder: Annotated[
        bool,
        typer.Option("--checkpoint-decoder", help="Latent priors: less memory, as the decoder is computed twice."),
    ] = False,
    workers: Workers = None,
) -> None:
    """Draw what an incomplete or blurred image may have been. Given again, it goes on.

    IN holds measurements, or clean images with --simulate; `held_out` means the images that the run did not learn from.
    If something is wrong with an image, it is reported and the others go on; the exit code is then 1.

    Example: generative restore runs/edm/restore held_out restored/ --operator inpaint:missing=0.75
    """
    from launch.asked import asked_launch, settings_of, split_overrides
    from launch.console import Console, bar_progress
    from launch.outcomes import cost_details, tell_outcome
    from launch.restore_files import REPORT
    from launch.restore_prior import PriorAsked
    from launch.restore_worker import RestoreAsked
    from launch.restoring import restore_files
    from launch.sections import LaunchConfig

    launch_overrides, _ = split_overrides(overrides or [], ())
    launch = asked_launch(LaunchConfig(), launch_overrides, workers)
    changes = settings_of(settings)
    asked = RestoreAsked(
        PriorAsked(prior, label, prompt, weights.value),
        source,
        target,
        operator,
        method,
        changes,
        noise,
        noise_model.value,
        simulate,
        samples,
        seed,
        batch_size,
        resize,
        count,
        checkpoint_decoder,
    )
    console = Console()
    found = restore_files(asked, launch, console.line, bar_progress(console, "restore"))
    console.end_progress()
    tell_outcome(console, "restore", "restored", found, cost_details(found.done, found.seconds, "a sample"))
    if found.done or found.kept:
        console.line("report", str(target / REPORT))
    raise typer.Exit(1 if found.failed else 0)
