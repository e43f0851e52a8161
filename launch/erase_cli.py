"""`generative erase`: take concepts out of a text-to-image model, and put them back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import LaunchOverrides


class Method(StrEnum):
    """How concepts are erased."""

    UCE = "uce"
    RECE = "rece"


class Format(StrEnum):
    """What is written."""

    TRANSFORM = "transform"
    PARTIAL = "partial"
    LORA = "lora"
    FULL = "full"


def erase(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of diffusers, .safetensors file, hub:OWNER/NAME, or the folder of an earlier erasure.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make; it appears when it is complete.")],
    overrides: LaunchOverrides = None,
    concept: Annotated[list[str] | None, typer.Option(help="What is erased; may be repeated.")] = None,
    guide: Annotated[
        list[str] | None, typer.Option(help="What it becomes: one guide for all concepts, or one for each.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="nudity, unsafe, artist, hard_object, easy_object, small, keep_only, uce, uce_last.")
    ] = "nudity",
    method: Annotated[
        Method | None, typer.Option(help="rece, or uce (without RECE's epochs); if not given, as the preset says.")
    ] = None,
    preserve: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with texts that stay, one in each line.")
    ] = None,
    preserve_scale: Annotated[float | None, typer.Option(min=0, help="Weight of each text that stays.")] = None,
    erase_scale: Annotated[float | None, typer.Option(help="Weight of the concepts' tokens.")] = None,
    lamb: Annotated[float | None, typer.Option(min=0, help="Pull towards the current weights.")] = None,
    shrink: Annotated[
        float | None, typer.Option(min=0, help="Remove what the texts that stay have less of than this share.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of RECE.")] = None,
    lam: Annotated[float | None, typer.Option(min=0, help="Ridge of RECE's derivation.")] = None,
    regulariser: Annotated[
        str | None,
        typer.Option(
            help="Regulariser of the derivation: zero, standard (towards the guide), surrogate_1st, _2nd, _both."
        ),
    ] = None,
    technique: Annotated[
        str | None, typer.Option(help="Technique of UCE: replace, or tensor (layer by layer).")
    ] = None,
    cumulative: Annotated[
        bool, typer.Option("--cumulative", help="Every epoch solves from the first weights.")
    ] = False,
    distinct_rows: Annotated[bool, typer.Option("--distinct-rows", help="Count equal rows of texts once.")] = False,
    scale_free: Annotated[bool, typer.Option("--scale-free", help="Constants in units of the model's own.")] = False,
    strength: Annotated[float, typer.Option(help="How much of this erasure is applied; 1 is all of it.")] = 1.0,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", help="What is written; may be repeated. If not given: transform and partial."),
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the LoRA; its error is reported.")] = None,
    include: Annotated[str | None, typer.Option(help="Edit only matrices whose names match (to_v: values).")] = None,
    exclude: Annotated[str | None, typer.Option(help="Leave out matrices whose names match.")] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="PIPELINE", help="The pipeline that a single file belongs to: folder, or hub:OWNER/NAME."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    images: Annotated[int, typer.Option(min=0, help="Images of each concept in the report, before and after.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the first image.")] = 0,
    edited: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An edit of MODEL by UCE's or RECE's code, to build on or to convert."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Where the base model of an erasure is now, if it has moved.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Share the sum over --preserve out over so many Ray workers.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back the last erasure; MODEL is the folder of one.")
    ] = False,
) -> None:
    """Erase concepts from a text-to-image model in seconds.

    By closed forms, without images or training; the model itself is never changed.

    DIR has the edit (--format) and report.html. An erasure of an erasure builds on it; --undo derives what was before
    from the base model, bitwise.

    Example: generative erase models/sd14 --concept nudity --guide " " --preset nudity --out erased/nudity
    """
    from launch.asked import asked_launch, split_overrides
    from launch.console import Console
    from launch.erase_asked import EraseAsked, check_undo
    from launch.erasing import AskedFiles, convert_to, erase_to, undo_to
    from launch.sections import LaunchConfig

    chosen = [one.value for one in formats or (Format.TRANSFORM, Format.PARTIAL)]
    files = AskedFiles(out, chosen, rank)
    console = Console()
    if undo:
        check_undo(concept or guide or preserve or edited)
        for line in undo_to(model, files, text, base):
            console.line(*line)
        return
    asked = EraseAsked(
        model=model,
        concepts=concept or [],
        guides=guide,
        preset=preset,
        method=None if method is None else method.value,
        preserve=preserve,
        changes={
            "epochs": epochs,
            "lam": lam,
            "cumulative": cumulative or None,
            "scale_free": scale_free or None,
            "distinct_rows": distinct_rows or None,
            "technique": technique,
            "preserve_scale": preserve_scale,
            "erase_scale": erase_scale,
            "lamb": lamb,
            "shrink": shrink,
            "regulariser": regulariser,
        },
        strength=strength,
        include=include,
        exclude=exclude,
        text=text,
        revision=revision,
        images=images,
        seed=seed,
        edited=edited,
        base=base,
        launch=asked_launch(LaunchConfig(), split_overrides(overrides or [], ())[0], workers),
    )
    if (edited is not None or base is not None) and not asked.erases:
        for line in convert_to(asked, files):
            console.line(*line)
        return
    for line in erase_to(asked, files):
        console.line(*line)


def debias(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of diffusers, .safetensors file, or hub:OWNER/NAME.")
    ],
    concept: Annotated[str, typer.Option(help="The concept whose images are to show the attributes.")],
    attribute: Annotated[list[str], typer.Option(help="An attribute; repeat the option for two or more.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make; it appears when it is complete.")],
    share: Annotated[
        list[float] | None, typer.Option(help="Share of each attribute, in their order; equal ones if not given.")
    ] = None,
    labels: Annotated[str, typer.Option(help="What tells the attributes apart: clip, clip:FOLDER or digits.")] = "clip",
    images: Annotated[int, typer.Option(min=2, help="Images drawn in each round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at most.")] = 30,
    text: Annotated[
        str | None,
        typer.Option(metavar="PIPELINE", help="The pipeline that a single file belongs to: folder, or hub:OWNER/NAME."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first image; all rounds draw from the same noise.")] = 0,
    formats: Annotated[list[Format] | None, typer.Option("--format", help="What is written, as for erase.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the LoRA; its error is reported.")] = None,
) -> None:
    """Make a concept show attributes in wanted shares.

    By UCE's closed form, in each of a few rounds of images.

    Example: generative debias models/sd14 --concept doctor --attribute "a woman" --attribute "a man" --out debiased
    """
    from launch.console import Console
    from launch.debiasing import AskedShares, debias_to
    from launch.erasing import AskedFiles

    files = AskedFiles(out, [one.value for one in formats or (Format.TRANSFORM, Format.PARTIAL)], rank)
    asked = AskedShares(model, concept, attribute, tuple(share or ()), labels, images, rounds, seed, revision, text)
    console = Console()
    for line in debias_to(asked, files):
        console.line(*line)
