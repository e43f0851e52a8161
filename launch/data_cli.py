"""`generative data`: tokenise before training, for instance on a machine without accelerators."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Prepare data.", rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def group() -> None:
    """Prepare data."""


@app.command()
def prepare(
    config: Annotated[str, typer.Argument(metavar="CONFIG")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="a.b=c")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that tokenise.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read and compare all that is there already.")] = False,
) -> None:
    """Tokenise the data of a configuration once; training then starts at once. Can be killed and given again."""
    from generative.data.prepare import prepare_text
    from launch.console import Console, bar_progress
    from launch.schema import load_run_config
    from launch.text_task import open_data

    settings, console = load_run_config(config, overrides or []), Console()
    progress = bar_progress(console, "data", "B")
    folder = prepare_text(settings.data, workers=workers, progress=progress, verify=verify)
    console.end_progress()
    console.line("data", f"{open_data(settings).description} · {folder}")
