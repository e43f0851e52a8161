"""`generative push`: an exported folder onto the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that export or import wrote.")],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; it is made if it is not there yet.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Message of the commit.")
    ] = "Upload a model by generative",
) -> None:
    """Publish a model on the Hugging Face hub.

    Weights (safetensors only), configuration, tokenizer and card, as one commit. The token is taken from HF_TOKEN or
    `hf auth login`, and never shown. Read README.md first, and choose a licence.

    Example: generative export runs/mine --out models/mine && generative push models/mine me/mine
    """
    from generative.hub import push as hub
    from launch.console import Console

    pushed = hub.push(folder, repository, private=private, message=message, say=Console().line)
    typer.echo(f"{len(pushed.files)} files at {pushed.url}")
