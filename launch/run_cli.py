"""The commands for one run: train, status, sample, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

current_run: list[str] = []
"""Folder of the run that this process trains; where a traceback goes."""

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="Name (see `generative config list`) or YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=c", help="Settings that win over the file; ~a.b deletes one."),
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or one of its checkpoints.")]


def train(config: ConfigName, overrides: Overrides = None) -> None:
    """Train a configuration; the same command given again goes on where it was.

    Example: generative train masked_diffusion/quickstart train.steps=200 launch.workers=4
    """
    from launch import run
    from launch.stopping import exit_code

    code = run.train(config, overrides or [], on_folder=current_run.append)
    raise typer.Exit(exit_code(code))


def status(
    path: Annotated[str, typer.Argument(metavar="RUN_OR_FOLDER", help="A run, or a folder with runs in it.")] = "runs",
) -> None:
    """Show how runs stand: state, step, loss, speed, restarts, what was lost. Reads files only."""
    from launch import status as runs

    typer.echo(runs.show(path))


def sample(
    run: RunFolder,
    prompt: Annotated[str | None, typer.Option(help="Text that samples begin with.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Number of samples.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Network calls (masked diffusion).")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 takes the most likely token.")] = None,
    order: Annotated[str | None, typer.Option(help="ancestral or confidence (masked diffusion).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.")] = None,
    infill: Annotated[str | None, typer.Option(help='Text with "▁" for each token to fill in.')] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the samples, step by step, to this file.")] = None,
) -> None:
    """Draw samples or fill gaps with a trained model. What is not given is as in the run's configuration."""
    from launch.folder import check_output, write_output
    from launch.runs import sample_run

    check_output(json, "--json")
    samples = sample_run(
        run, prompt=prompt, count=count, steps=steps, temperature=temperature, order=order, seed=seed, infill=infill
    )
    for number, item in enumerate(samples["items"], start=1):
        typer.echo(f"{item['kind']} {number}  ({samples['model']}, step {samples['step']})\n{item['text']}\n")
    write_output(json, samples)


def evaluate(
    run: RunFolder,
    windows: Annotated[int | None, typer.Option(min=1, help="Held-out windows.")] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="Forward passes a window.")] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Measure a trained model on held-out data. What is not given is as in the run's configuration."""
    from launch.console import Console, bar_progress
    from launch.folder import check_output, write_output
    from launch.results import figures_table
    from launch.runs import evaluate_run

    check_output(json, "--json")
    console = Console()
    written: list[Path] = []
    progress = bar_progress(console, "evaluate")
    found = evaluate_run(run, windows=windows, draws=draws, progress=progress, on_written=written.append)
    console.end_progress()
    typer.echo("\n".join([figures_table(found), *(f"written to {path}" for path in written)]))
    write_output(json, found)
