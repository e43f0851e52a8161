"""`generative import`: published weights as a folder that runs can start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FILE|hub:ID", help="A file (or folder) of weights, or a repository on the hub.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make; it appears when it is complete.")],
    file: Annotated[str | None, typer.Option(metavar="NAME", help="File in the repository (or folder).")] = None,
    method: Annotated[
        str | None, typer.Option(help="Whose weights they are; if not given, guessed from the file's name.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")] = None,
    max_shard: Annotated[
        str, typer.Option("--max-shard", metavar="SIZE", help="Largest size of a weight file.")
    ] = "5GB",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier folder of the same kind.")] = False,
    as_trained: Annotated[
        bool, typer.Option("--as-trained", help="Take the weights as trained, where the file also has averages.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="a=b", help="For adm and ldm, what the file does not say: size=256, head_width=64."
        ),
    ] = None,
) -> None:
    """Turn a published checkpoint into a folder of ours.

    Runs start from such a folder: train.networks.NAME.init_from=DIR. Nothing in the files is run. Networks that come in
    pairs (50gen.pth, 50cls.pth) are imported together. Diffusion models of guided-diffusion (--method adm) and of
    latent-diffusion (--method ldm) become pipelines, which `generative restore` takes.

    Example: generative import hub:nieshen/SMDM --file mdm_safetensors/mdm-170M-100e18.safetensors --out models/mdm
    """
    from launch.asked import settings_of
    from launch.console import Console
    from launch.importing import Asked, import_weights

    asked = Asked(source, file, method, revision, max_shard, force, as_trained, settings_of(settings))
    files = import_weights(asked, out, Console().line)
    typer.echo(f"written to {out}: {', '.join(path.name for path in files)}")
