"""`generative export`: a trained network in the layout of Hugging Face."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.run_cli import RunFolder


class Number(StrEnum):
    """Number format of exported weights."""

    FP32 = "fp32"
    BF16 = "bf16"


class LayoutName(StrEnum):
    """Names of the exported tensors."""

    GENERATIVE = "generative"
    LLAMA = "llama"
    PEFT = "peft"
    RELEASED = "released"
    DIFFUSERS = "diffusers"


def export(
    run: RunFolder,
    to: Annotated[
        Path, typer.Option("--out", "--to", metavar="DIR", help="Folder to make; it appears when it is complete.")
    ],
    network: Annotated[str | None, typer.Option(help="Which network, where the method trains several.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="trained|ema|ema=0.999|power=0.15",
            help="As trained, one of the averages kept of them, or one of any width (method.ema_power); if not given, "
            "those that `generative sample` draws with.",
        ),
    ] = None,
    dtype: Annotated[Number, typer.Option(help="Number format of the weights.")] = Number.FP32,
    max_shard: Annotated[
        str, typer.Option("--max-shard", metavar="SIZE", help="Largest size of a weight file.")
    ] = "5GB",
    layout: Annotated[
        LayoutName,
        typer.Option(
            help="llama: for transformers' LlamaForCausalLM (language models). peft: low-rank changes alone "
            "(method.lora). released: the files of the method's own published code (language models, mee_gan, sgmse). "
            "diffusers: a pipeline (text_to_image, f_distill of Stable Diffusion), or an AutoencoderKL (kl_vae)."
        ),
    ] = LayoutName.GENERATIVE,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in DIR.")] = False,
) -> None:
    """Write a trained network as a folder of safetensors.

    With config.json, tokenizer and model card. The checkpoint may be of any strategy and number of workers. The folder
    can start a run (method.init_from=DIR; where a method trains several networks, train.networks.NAME.init_from=DIR).
    Tokenizers are of text models only.

    Example: generative export runs/mine --out models/mine --weights ema --dtype bf16
    """
    from launch.console import Console, bar_progress
    from launch.export import Asked, export_run

    console = Console()
    asked = Asked(network, weights, dtype.value, max_shard, layout.value, force)
    try:
        files = export_run(run, to, asked, console.line, bar_progress(console, "export", "B"))
    finally:
        console.end_progress()
    if layout in (LayoutName.RELEASED, LayoutName.PEFT):
        typer.echo(f"written to {to}: {', '.join(path.name for path in files)}")
        return
    if layout is LayoutName.DIFFUSERS:
        typer.echo(f"written to {to}: {len(files)} files in the layout of diffusers")
        return
    pieces = [path.name for path in files if path.suffix == ".safetensors"]
    others = [path.name for path in files if path.name not in pieces]
    first = f"{len(pieces)} files of weights" if len(pieces) > 1 else pieces[0]
    typer.echo(f"written to {to}: {', '.join([first, *others])}")
    typer.echo("README.md is a draft: read it, and choose a licence, before you publish the model")
