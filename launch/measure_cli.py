"""`generative measure-erasure`: what an erasure did to images of prompts, and what attacks bring back."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import LaunchOverrides, Workers


class Attack(StrEnum):
    """How the concept is brought back."""

    SOFT = "soft-prompt"
    UNLEARN = "unlearndiffatk"
    P4D = "p4d"
    RING = "ring-a-bell"
    RING_TOKENS = "ring-a-bell-tokens"
    RECE = "rece"


def measure(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an erasure.")],
    prompts: Annotated[
        Path,
        typer.Option(
            metavar="CSV",
            help="File with the column prompt; optional: evaluation_seed, evaluation_guidance, case_number.",
        ),
    ],
    detector: Annotated[
        str, typer.Option(help="What sees the concept: nudenet, nudenet:0.45, resnet50:CLASS, q16:FILE or digits:WORD.")
    ],
    overrides: LaunchOverrides = None,
    attack: Annotated[list[Attack] | None, typer.Option(help="Try to bring the concept back; may be repeated.")] = None,
    norm: Annotated[
        list[float] | None,
        typer.Option(
            help="Norm of the embeddings that attacks may use, in units of the prompt's (inf: any); may be repeated."
        ),
    ] = None,
    attack_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of an attack's search; as published if not given.")
    ] = None,
    free_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens that are searched: unlearndiffatk (5), p4d and ring-a-bell-tokens (16)."),
    ] = None,
    probes: Annotated[int, typer.Option(min=1, help="Noisy images that soft prompts are compared on.")] = 8,
    pairs: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Columns sensitive and normal, for ring-a-bell.")
    ] = None,
    eta: Annotated[float, typer.Option(help="Strength of ring-a-bell: 3 for nudity, 0.9 for van gogh.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Seed of the attacks; images take theirs from --prompts.")] = 0,
    fid: Annotated[
        str | None,
        typer.Option(
            metavar="EXTRACTOR", help="FID by this extractor: inception:FILE, transformers:NAME, digits or pixels."
        ),
    ] = None,
    real: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Real images, to measure FID against them too.")
    ] = None,
    lpips: Annotated[bool, typer.Option("--lpips", help="LPIPS between images before and after.")] = False,
    clip: Annotated[
        str | None, typer.Option(metavar="MODEL", help="CLIP score by this model: a folder, or hub:OWNER/NAME.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--keep-images", metavar="DIR", help="Keep the images in DIR/before and DIR/after.")
    ] = None,
    workers: Workers = None,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="HTML", help="Also write a page with the curves.")] = None,
) -> None:
    """Count images that show a concept, before and after.

    That is, before and after its erasure, for the same prompts and seeds. With --attack also: for how many prompts an
    attacker brings it back, by the norm of the embeddings that the attack may use.

    Example: generative measure-erasure erased/nudity --prompts i2p.csv --detector nudenet --attack soft-prompt
    --norm 1 --norm 2 --report attacked.html --workers 8 launch.gpus_per_worker=1
    """
    from evaluation.erasure.attack_settings import AttackSettings
    from launch.asked import asked_launch, split_overrides
    from launch.console import Console, bar_progress
    from launch.erase_figures import AskedFigures
    from launch.erase_measured import AskedMeasures, lines, measure_all, write_page
    from launch.folder import check_output, write_output
    from launch.sections import LaunchConfig

    check_output(json, "--json")
    check_output(report, "--report")
    rhos = tuple(sorted(set(norm))) if norm else (0.5, 1.0, 2.0, 4.0, math.inf)
    attacks = [
        AttackSettings(one.value, rhos, attack_steps, free_tokens, probes, eta, seed)
        for one in dict.fromkeys(attack or ())
    ]
    figures = AskedFigures(fid, real, lpips, clip)
    asked = AskedMeasures(folder, prompts, detector, attacks, pairs, figures, images)
    launch = asked_launch(LaunchConfig(), split_overrides(overrides or [], ())[0], workers) or LaunchConfig()
    console = Console()
    try:
        found = measure_all(asked, launch, lambda name: bar_progress(console, name))
    finally:
        console.end_progress()
    for line in lines(found):
        console.line(*line)
    write_output(json, found.to_json())
    if report is not None:
        write_page(report, asked, found)
        console.line("written", str(report))
