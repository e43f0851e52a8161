"""`generative edit`: another text for an image, whole or corrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def edit(
    prior: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A folder of diffusers with a text encoder, or hub:OWNER/NAME."),
    ],
    source: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image, or a folder with any below it.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the results and the report.")],
    before: Annotated[str, typer.Option("--source", help="What the image shows: 'a photo of a cat'.")],
    after: Annotated[str, typer.Option("--target", help="What it is to show: 'a photo of a dog'.")],
    mode: Annotated[str, typer.Option(help="replace (as many words), refine (words more or less), reweight.")] = (
        "refine"
    ),
    weight: Annotated[
        list[str] | None, typer.Option(metavar="WORD=c", help="For reweight: how much a word of the target counts.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="How the image was corrupted: superres:factor=4, inpaint:missing=0.4, ...")
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of a corrupted image's noise, in the range [-1, 1].")
    ] = 0.05,
    simulate: Annotated[bool, typer.Option("--simulate", help="Images are clean; corrupt them first.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of inversion and of drawing.")] = 50,
    rounds: Annotated[
        int, typer.Option(min=1, help="Iterations of each inversion step; 1 is plain DDIM inversion.")
    ] = 4,
    guidance: Annotated[float, typer.Option(help="Guidance weight of the target's text; 1: no guidance.")] = 7.5,
    cross: Annotated[float, typer.Option(help="Share of the steps with the source's cross-attention.")] = 0.8,
    own: Annotated[float, typer.Option("--self", help="Share of the steps with the source's self-attention.")] = 0.4,
    contrast: Annotated[
        str | None, typer.Option(metavar="clip:FOLDER", help="Contrastive term on a CLIP vision encoder's patches.")
    ] = None,
    nu: Annotated[float, typer.Option(help="Weight of the contrastive term.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed; each image also has its own, by its name.")] = 0,
    resize: Annotated[bool, typer.Option("--resize", help="Cut and scale clean images to the model's size.")] = False,
) -> None:
    """Edit what an image shows, and keep the rest of it. Given again, it goes on.

    A corrupted image (--operator) is restored first, by STSL.

    Example: generative edit model/ cat.png edited/ --source "a photo of a cat" --target "a photo of a dog"
    """
    from launch.console import Console, bar_progress
    from launch.edit_asked import EditAsked, read_weights
    from launch.edit_files import edit_files
    from launch.outcomes import cost_details, tell_outcome
    from launch.restore_files import REPORT

    asked = EditAsked(
        prior,
        source,
        target,
        before,
        after,
        mode,
        read_weights(weight or []),
        operator,
        noise,
        simulate,
        steps,
        rounds,
        guidance,
        cross,
        own,
        contrast,
        nu,
        seed,
        resize,
    )
    console = Console()
    found = edit_files(asked, console.line, bar_progress(console, "edit"))
    console.end_progress()
    tell_outcome(console, "edit", "edited", found, cost_details(found.done, found.seconds, "an image"))
    if found.done or found.kept:
        console.line("report", str(target / REPORT))
    raise typer.Exit(1 if found.failed else 0)
