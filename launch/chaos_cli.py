"""`generative chaos`."""

from __future__ import annotations

from typing import Annotated

import typer

from launch.run_cli import ConfigName, Overrides


def chaos(
    config: ConfigName,
    overrides: Overrides = None,
    kill: Annotated[
        str,
        typer.Option(
            metavar="KIND@STEP,...",
            help="Faults: worker, hang, sigterm, driver, disk, corrupt, raylet, preempt, cluster.",
        ),
    ] = "worker@50,driver@80",
    seed: Annotated[int, typer.Option(help="Seed of the choice of workers and nodes that are hit.")] = 0,
) -> None:
    """Prove that faults change nothing in a run.

    It is trained twice, once with faults done to it, and both are compared.

    Both runs are on this machine, in RUN_FOLDER/chaos. Exit code 0 only where every fault was survived and all losses,
    validations and final weights are equal: bit for bit, or to 1e-5 where the number of workers changed on the way.

    Example: generative chaos masked_diffusion/quickstart launch.workers=2 --kill worker@50,hang@90,driver@120
    """
    from launch.chaos import chaos as run
    from launch.chaos_faults import parse
    from launch.console import Console

    console = Console()
    verdict = run(config, overrides or [], parse(kill), seed, console.line)
    typer.echo(verdict.table())
    raise typer.Exit(0 if verdict.equal else 1)
