"""`generative campaign`: scaling laws from a budget to a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import Overrides

app = typer.Typer(help="Measure scaling laws.", rich_markup_mode=None, no_args_is_help=True)

CampaignName = Annotated[
    str, typer.Argument(metavar="CONFIG", help="Campaign: a name such as campaign/mdm_vs_ar_tiny, or a YAML file.")
]
Json = Annotated[Path | None, typer.Option(help="Also write it to this file.")]


@app.callback()
def group() -> None:
    """Measure scaling laws."""


@app.command()
def plan(config: CampaignName, overrides: Overrides = None, json: Json = None) -> None:
    """Estimate FLOPs, time and cost of a campaign.

    The cells and their memory too; nothing is started or fetched.

    Example: generative campaign plan campaign/smdm plan.machine=h100-80gb launch.slots=8
    """
    from dataclasses import asdict

    from launch.campaign.costs import costs, plan_lines
    from launch.campaign.opened import open_campaign
    from launch.folder import check_output, write_output
    from launch.plan_text import render

    check_output(json, "--json")
    campaign = open_campaign(config, overrides or [])
    told = costs(campaign.config, campaign.grid, campaign.jobs)
    typer.echo(render(plan_lines(campaign.config, campaign.grid, campaign.jobs, told)))
    cells = [
        {"name": c.name, "hash": c.hash, "N": c.N, "D": c.tokens, "C": c.flops, "budget": c.budget, "steps": c.steps}
        for c in campaign.grid.cells
    ]
    write_output(json, {"costs": asdict(told), "cells": cells, "left_out": campaign.grid.left_out})


@app.command()
def run(config: CampaignName, overrides: Overrides = None) -> None:
    """Run all cells that are not done, the largest first.

    The same command given again goes on, after kill -9 too.

    Example: generative campaign run campaign/mdm_vs_ar_tiny launch.backend=local
    """
    from launch.campaign.opened import open_campaign
    from launch.campaign.running import run_campaign
    from launch.console import Console

    raise typer.Exit(run_campaign(open_campaign(config, overrides or []), Console()))


@app.command()
def status(config: CampaignName, overrides: Overrides = None) -> None:
    """Show which cells are done, and what was spent. How many are running, lost or failed, too; it reads files only."""
    from launch.campaign.opened import open_campaign
    from launch.campaign.report import status_lines
    from launch.plan_text import render

    typer.echo(render(status_lines(open_campaign(config, overrides or []))))


@app.command()
def report(config: CampaignName, overrides: Overrides = None) -> None:
    """Fit laws to what has been measured so far.

    Writes report.html, results.csv and laws.json into the campaign's folder.
    """
    from launch.campaign.opened import open_campaign
    from launch.campaign.report import write_report
    from launch.plan_text import render

    path, lines = write_report(open_campaign(config, overrides or []))
    typer.echo(render([*lines, ("report", str(path))]))


@app.command()
def coordinates(config: CampaignName, overrides: Overrides = None) -> None:
    """Check whether a campaign's learning rates hold for all its widths.

    Trains one network of each width for a few steps and compares how much their activations change (the coordinate
    check of muP). Writes coordinates.json into the campaign's folder; the report tells it.

    Example: generative campaign coordinates campaign/mdm_vs_ar_tiny
    """
    from launch.campaign.coordinates import check_coordinates
    from launch.campaign.opened import open_campaign
    from launch.console import Console
    from launch.plan_text import render

    typer.echo(render(check_coordinates(open_campaign(config, overrides or []), Console())))


@app.command()
def predict(
    config: CampaignName,
    overrides: Overrides = None,
    flops: Annotated[float, typer.Option(help="Training FLOPs, such as 1e18.")] = ...,  # type: ignore[assignment]
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
) -> None:
    """Predict the best model for a budget of compute.

    Size, tokens, batch, learning rate and loss, with intervals; also writes its configuration.

    Example: generative campaign predict campaign/mdm_vs_ar_tiny --flops 1e15
    """
    from launch.campaign.opened import open_campaign
    from launch.campaign.prediction import predict as predicted
    from launch.plan_text import render

    found = predicted(open_campaign(config, overrides or []), flops, family)
    typer.echo(render([line for one in found for line in one.lines()]))
