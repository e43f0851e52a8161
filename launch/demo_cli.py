"""`generative gallery` and `generative demo-all`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import Overrides


def gallery(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A run, or a folder with runs in it.")] = Path("runs"),
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; RUNS/gallery.html if not given.")] = None,
) -> None:
    """Write one page over many runs.

    It has a card for each run, complete or not, with figures, a picture and a link.

    Reads files only, so it works while runs go on. Links are relative to the page.
    """
    from launch.folder import check_output
    from launch.gallery import make_gallery

    check_output(out, "--out")
    path, count, others = make_gallery(runs, out)
    more = f" and {others} other report{'' if others == 1 else 's'}" if others else ""
    typer.echo(f"written to {path}: {count} run{'' if count == 1 else 's'}{more}")


def demo_all(
    overrides: Overrides = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this quickstart; may be repeated.")
    ] = None,
) -> None:
    """Train every quickstart and write one page over all.

    What is trained also restores images and has a concept erased.

    Settings hold for each training. Given again, it goes on: what is complete is not trained again. Runs go to `runs`
    in this folder, the page to runs/gallery.html.

    Example: generative demo-all launch.backend=local launch.workers=1
    """
    from launch.demo import run_demos

    raise typer.Exit(run_demos(overrides or [], only or []))
