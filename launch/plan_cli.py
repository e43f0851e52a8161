"""`generative plan`: what a configuration takes, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import ConfigName, Overrides


def plan(
    config: ConfigName,
    overrides: Overrides = None,
    json: Annotated[Path | None, typer.Option(help="Also write the plan, in bytes and seconds, to this file.")] = None,
) -> None:
    """Estimate memory, time and cost of a run before it starts.

    Parameters and operations too, and memory rank by rank; nothing is started or fetched.

    Exit code 0 where it fits, 3 where it does not. The machine is this one, or one of configs/machines:

    Example: generative plan masked_diffusion/1.1b parallel.strategy=zero2 plan.machine=h100-80gb
    """
    from launch import autoencoders, plan_advice, plan_details, plan_json, plan_text
    from launch.folder import check_output, write_output
    from launch.schema import load_run_config
    from launch.teachers import without_missing

    check_output(json, "--json")
    asked = load_run_config(config, overrides or [])
    told, found = plan_details.make(autoencoders.without_missing(without_missing(asked)))
    remedies = [] if told.fits else plan_advice.remedies(told, found)
    typer.echo(plan_text.render(plan_text.lines(told, remedies)))
    write_output(json, plan_json.as_json(told, remedies))
    raise typer.Exit(0 if told.fits else 3)
