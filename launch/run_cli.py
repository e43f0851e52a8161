"""The commands for one run: train, status, sample, evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from generative.errors import ConfigError

current_run: list[str] = []
"""Folder of the run that this process trains; where a traceback goes."""

ConfigName = Annotated[str, typer.Argument(metavar="CONFIG", help="Name (see `generative config list`) or YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=c", help="Settings that win over the file; ~a.b deletes one."),
]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or one of its checkpoints.")]

RunOverrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="a.b=c", help="Further settings, say launch.workers=8 launch.gpus_per_worker=1."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Share the work out over so many Ray workers.")]


def train(config: ConfigName, overrides: Overrides = None) -> None:
    """Train a configuration; the same command given again goes on where it was.

    Example: generative train masked_diffusion/quickstart train.steps=200 launch.workers=4
    """
    from launch import run
    from launch.stopping import exit_code

    code = run.train(config, overrides or [], on_folder=current_run.append)
    raise typer.Exit(exit_code(code))


def status(
    path: Annotated[str, typer.Argument(metavar="RUNS", help="A run, or a folder with runs in it.")] = "runs",
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, until no run is alive or Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all that is known, for programs.")] = False,
) -> None:
    """Show how runs stand: progress, speed, time left, lost work. Reads files only."""
    from launch import status_show as runs

    if watch and json:
        raise ConfigError(
            "--watch and --json are both given", "one of them", "leave out one; --json prints the state of this moment"
        )
    if json:
        typer.echo(runs.as_json(path))
    else:
        (runs.watch if watch else runs.show)(path)


def logs(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    worker: Annotated[int | None, typer.Option(min=0, help="Only this worker's.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until the run has ended.")
    ] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only what went wrong.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Last lines to show; 0 for all.")] = 100,
) -> None:
    """Show what the workers, Ray and the trainer have said, by time. Works while a run goes on and after it."""
    import contextlib
    import sys
    import time

    from launch.logs import Logs, show

    folder = Path(run)
    with contextlib.suppress(KeyboardInterrupt):
        show(Logs(folder, worker, errors), folder, lines, follow, sys.stdout, time.sleep)


def sample(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run, checkpoint, exported or imported folder, or hub:OWNER/NAME.")
    ],
    overrides: RunOverrides = None,
    prompt: Annotated[str | None, typer.Option(help="Text that samples begin with.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Class of images, by number or name; several are dealt out in turn.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Number of samples.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a diffusion model's sampler.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 takes the most likely token.")] = None,
    order: Annotated[str | None, typer.Option(help="Of masked diffusion: ancestral, confidence, margin, ...")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.")] = None,
    infill: Annotated[str | None, typer.Option(help='Text with "▁" for each token to fill in.')] = None,
    workers: Workers = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures of an exported model; else samples/NAME.")
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Of an exported model without one: bytes, a folder, or a name on the hub.")
    ] = "",
    json: Annotated[Path | None, typer.Option(help="Also write the samples, step by step, to this file.")] = None,
) -> None:
    """Draw samples or fill gaps with a trained model. What is not given is as in the run's configuration."""
    from launch.console import Console, bar_progress
    from launch.folder import check_output, write_output
    from launch.runs import sample_run, samples_shown

    check_output(json, "--json")
    console = Console()
    samples = sample_run(
        run,
        prompt=prompt,
        label=label,
        count=count,
        steps=steps,
        temperature=temperature,
        order=order,
        seed=seed,
        infill=infill,
        workers=workers,
        out=out,
        tokenizer=tokenizer,
        overrides=overrides or [],
        progress=bar_progress(console, "sample"),
    )
    console.end_progress()
    for line in samples_shown(run, samples):
        typer.echo(line)
    write_output(json, samples)


def evaluate(
    run: RunFolder,
    overrides: RunOverrides = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Held-out windows.")] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="Forward passes a window.")] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Text: tasks, as paper-zero-shot, or a file.")
    ] = None,
    tasks: Annotated[Path | None, typer.Option(metavar="DIR", help="Of --suite: task files of your own.")] = None,
    tokenizer: Annotated[str, typer.Option(help="Of --suite: bytes, a folder, or a name on the hub.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Of --suite: first questions of each task.")] = None,
    workers: Workers = None,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Measure a trained model on held-out data. What is not given is as in the run's configuration."""
    from launch.console import Console, bar_progress
    from launch.folder import check_output, write_output
    from launch.results import figures_table
    from launch.runs import evaluate_run

    check_output(json, "--json")
    console = Console()
    if suite is not None:
        _refuse({"--windows": windows, "--draws": draws}, "with --suite", "set suite.draws=N, and leave them out")
        from launch.suites import run_suite, suite_table

        asked = bar_progress(console, "evaluate")
        results = run_suite(
            run,
            suite,
            tasks=tasks,
            tokenizer=tokenizer,
            limit=limit,
            workers=workers,
            overrides=overrides or [],
            progress=asked,
        )
        console.end_progress()
        typer.echo(suite_table(results))
        write_output(json, results)
        return
    _refuse({"--tasks": tasks, "--tokenizer": tokenizer or None, "--limit": limit}, "without --suite", "give --suite")
    written: list[Path] = []
    progress = bar_progress(console, "evaluate")
    found = evaluate_run(
        run,
        windows=windows,
        draws=draws,
        workers=workers,
        overrides=overrides or [],
        progress=progress,
        on_written=written.append,
    )
    console.end_progress()
    typer.echo("\n".join([figures_table(found), *(f"written to {path}" for path in written)]))
    write_output(json, found)


def _refuse(options: Mapping[str, object], when: str, remedy: str) -> None:
    """Options that go unheard in this case; raises ConfigError where one is given."""
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} {when}", f"{option} where it is heard", remedy)
