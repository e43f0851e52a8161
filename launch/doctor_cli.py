"""`generative doctor`: what the environment has and lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="[RUNS]", help="Where runs will go.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Check this machine and installation.

    It says what they have, what they lack, and what to do about it. Nothing is changed, fetched or started. The exit
    code is 3 where something that is there will not work.
    """
    from launch.doctor import examine

    findings = list(examine(folder))
    wrong = sum(one.state == "wrong" for one in findings)
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in findings], indent=1))
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            typer.echo(f"{one.state:<6} {one.what:<{width}}  {one.found}")
            if one.remedy:
                typer.echo(f"{'':<6} {'':<{width}}  to fix: {one.remedy}")
        lacks = sum(one.state == "lacks" for one in findings)
        typer.echo(f"{wrong} wrong, {lacks} lacking, {len(findings) - wrong - lacks} well")
    if wrong:
        raise typer.Exit(3)
