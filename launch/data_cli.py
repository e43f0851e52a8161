"""`generative data`: tokenise or decode before training, for instance on a machine without accelerators."""

from __future__ import annotations

from typing import Annotated

import typer

from launch.run_cli import ConfigName, Overrides

app = typer.Typer(help="Prepare data before training.", rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def group() -> None:
    """Prepare data before training."""


@app.command()
def prepare(
    config: ConfigName,
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that tokenise text.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read and check again what has been prepared already.")
    ] = False,
) -> None:
    """Tokenise text or decode images and sound, once. Training then starts at once. Can be killed and given again."""
    from launch.console import Console
    from launch.modality import modality
    from launch.schema import load_run_config

    settings, console = load_run_config(config, overrides or []), Console()
    kind = modality(settings)
    folder = kind.prepare(settings, workers, verify, console)
    console.end_progress()
    console.line("data", " · ".join(filter(None, [kind.open_data(settings).description, str(folder or "")])))
