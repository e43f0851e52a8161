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
    typer.Argument(metavar="a.b=c", help="Further settings, such as launch.workers=8 launch.gpus_per_worker=1."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Share the work out over so many Ray workers.")]
LaunchOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="launch.a=b", help="Settings of the workers, such as launch.address=auto launch.gpus_per_worker=1."
    ),
]


def train(config: ConfigName, overrides: Overrides = None) -> None:
    """Train a configuration, then evaluate and sample it.

    The same command given again goes on where it was.

    Example: generative train masked_diffusion/quickstart train.steps=200 launch.workers=4
    """
    from launch import run
    from launch.stopping import exit_code

    code = run.train(config, overrides or [], on_folder=current_run.append)
    raise typer.Exit(exit_code(code))


def status(
    path: Annotated[str, typer.Argument(metavar="RUNS", help="A run, or a folder with runs in it.")] = "runs",
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until no run is alive, or Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Show progress, speed and time left of runs. Restarts and lost work too; it reads files only."""
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
    worker: Annotated[int | None, typer.Option(min=0, help="Only what this worker said.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow new lines until the run has ended.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only what went wrong.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Number of last lines to show; 0 for all.")] = 100,
) -> None:
    """Show what workers, Ray and the trainer have said. By time; while a run goes on and after it."""
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
        list[str] | None,
        typer.Option(help="Class of images, by number or name; repeat it for several, which are drawn in turn."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Number of samples.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a diffusion model's sampler.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Temperature of tokens; 0 takes the most likely one.")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="Order of tokens (masked diffusion): ancestral, confidence, margin, ...")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.")] = None,
    infill: Annotated[str | None, typer.Option(help='Text with "▁" for each token to fill in.')] = None,
    workers: Workers = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the pictures of an exported model; samples/NAME if not given."),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer, for an exported model without one: bytes, a folder, or hub:OWNER/NAME.")
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
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Run folder, or one of its checkpoints; with --suite also an exported or imported folder, or "
            "hub:OWNER/NAME.",
        ),
    ],
    overrides: RunOverrides = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Held-out windows of text to measure.")] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="Forward passes for each window.")] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Ask a text model the tasks of this suite, such as paper-zero-shot, or of a file."
        ),
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --suite: folder with task files of your own.")
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="With --suite: tokenizer of the model: bytes, a folder, or hub:OWNER/NAME.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --suite: only the first questions of each task.")
    ] = None,
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
