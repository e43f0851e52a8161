"""Opening a text-to-image model: a pipeline's folder, a single file, or a repository on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generative.errors import CheckpointError
from generative.hub.model_files import opened, read_json
from generative.hub.text_to_image import TextToImage
from generative.hub_names import repository
from generative.methods.rece.families import to_diffusers

INDEX = "model_index.json"
PARTS = ("unet", "transformer")
TEXTS = ("tokenizer*/*", "text_encoder*/*")


def open_model(name: str, revision: str | None = None, text: str | None = None) -> TextToImage:
    """A model from a folder of diffusers, a .safetensors file, or the hub.

    Args:
        name: path, or hub:OWNER/NAME (without `hub:` where there is no such path).
        revision: branch, tag or commit on the hub.
        text: pipeline that a file belongs to, with text encoders: a folder, or hub:OWNER/NAME[@REVISION].

    Raises:
        CheckpointError: there is no such model, or it is in another layout.
    """
    path = Path(name).expanduser()
    name, text = lasting(name), None if text is None else lasting(text)
    if path.is_file():
        return _single(name, path, text)
    folder = path if path.is_dir() else fetch_pipeline(name, revision)
    index = read_json(folder / INDEX)
    if index is None:
        raise CheckpointError(f"{folder} has no {INDEX}", "a pipeline of diffusers", "give the folder that holds it")
    part = next((p for p in PARTS if isinstance(index.get(p), list) and (folder / p).is_dir()), None)
    pipeline = str(index.get("_class_name", ""))
    if part is None:
        raise CheckpointError(
            f"{folder}: a pipeline {pipeline or 'of no class'} without a unet or transformer",
            "a text-to-image pipeline (StableDiffusionPipeline, StableDiffusionXLPipeline, FluxPipeline, ...)",
            "give another model",
        )
    config = read_json(folder / part / "config.json") or {}
    kind = str(config.get("_class_name") or index[part][1])
    places = _places(folder / part)
    return TextToImage(name, folder, part, kind, config, places, pipeline, revision, text, text_folder(text))


def lasting(name: str) -> str:
    """A name for other working folders too, those of later commands and of workers: paths are made absolute."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _single(name: str, path: Path, text: str | None) -> TextToImage:
    """A file of a denoiser's weights alone, or of a whole model, in the layout of diffusers or its publisher's."""
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: no safetensors file", "*.safetensors", "convert it with safetensors, or give another"
        )
    with opened(path) as file:
        names = list(file.keys())
    compvis = any(n.startswith("model.diffusion_model.") for n in names)
    kept = [n for n in names if not compvis or n.startswith("model.diffusion_model.")]
    places = {to_diffusers(n): (path, n) for n in kept}
    kind, config = "UNet2DConditionModel", dict[str, Any]()
    if "context_embedder.weight" in places:
        flux = any("single_transformer_blocks." in n or "single_blocks." in n for n in places)
        kind = "FluxTransformer2DModel" if flux else "SD3Transformer2DModel"
    elif "caption_projection.linear_1.weight" in places:
        kind = "PixArtTransformer2DModel"
    elif "add_embedding.linear_1.weight" in places:
        config = {"addition_embed_type": "text_time"}
    part = "unet" if kind.startswith("UNet") else "transformer"
    return TextToImage(name, None, part, kind, config, places, text=text, text_folder=text_folder(text))


def text_folder(name: str | None) -> Path | None:
    """Folder of a pipeline with text encoders and tokenizers: a path, or hub:OWNER/NAME[@REVISION]."""
    if name is None or Path(name).expanduser().is_dir():
        return None if name is None else Path(name).expanduser()
    place, _, revision = name.partition("@")
    return fetched(place, revision or None, [INDEX, *TEXTS], "correct --text; or download that pipeline, and give it")


def fetch_pipeline(name: str, revision: str | None) -> Path:
    """The parts of a repository that an edit needs, in the local cache: no VAE, no pickles.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    patterns = [INDEX, *(f"{p}/*.json" for p in PARTS), *(f"{p}/*.safetensors" for p in PARTS)]
    return fetched(
        name, revision, [*patterns, *TEXTS], "correct MODEL or --revision; or download the model, and give its path"
    )


def fetched(name: str, revision: str | None, patterns: list[str], remedy: str, ignored: Sequence[str] = ()) -> Path:
    """Files of a repository, without pickles, in the local cache.

    Args:
        name: hub:OWNER/NAME, or without `hub:`.
        revision: branch, tag or commit.
        patterns: of the files.
        remedy: what helps where they cannot be fetched.
        ignored: patterns of files that are left there, beside pickles and other formats.

    Raises:
        CheckpointError: they cannot be fetched.
    """
    try:
        from huggingface_hub import snapshot_download

        never = [
            "*.bin",
            "*.pt",
            "*.ckpt",
            "*.msgpack",
            "*.onnx*",
            "*.xml",
            "*openvino*",
            "*.py",
            "*non_ema*",
            *ignored,
        ]
        return Path(
            snapshot_download(repository(name), revision=revision, allow_patterns=patterns, ignore_patterns=never)
        )
    except ImportError as error:
        raise CheckpointError(
            f"{name}: no such file or folder here, and huggingface_hub is not installed",
            "a pipeline of diffusers, a .safetensors file, or hub:OWNER/NAME",
            "correct the path, or pip install 'generative[hub]'",
        ) from error
    except Exception as error:  # network, permissions, unknown names: many kinds, one meaning
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{name}: no such file or folder here, and not to be had from the hub: {reason[:200]}",
            "a pipeline of diffusers, a .safetensors file, or hub:OWNER/NAME that can be reached",
            remedy,
        ) from error


def _places(folder: Path) -> dict[str, tuple[Path, str]]:
    """Where each weight of a component is: one file or shards, of the plain variant before others (fp16)."""
    index = sorted(folder.glob("*.safetensors.index*.json"), key=lambda p: (len(p.name), p.name))
    if index:
        weights = (read_json(index[0]) or {}).get("weight_map")
        files = sorted(set(map(str, weights.values()))) if isinstance(weights, dict) else []
    else:
        files = [p.name for p in sorted(folder.glob("*.safetensors"), key=lambda p: (len(p.name), p.name))[:1]]
    if not files or any(Path(file).name != file for file in files):
        raise CheckpointError(
            f"{folder} has no weights in safetensors",
            "diffusion_pytorch_model.safetensors, whole or in shards",
            "convert the model (save_pretrained with safe_serialization), or take another revision",
        )
    found: dict[str, tuple[Path, str]] = {}
    for file in files:
        with opened(folder / file) as handle:
            found |= {to_diffusers(name): (folder / file, name) for name in handle.keys()}  # noqa: SIM118
    return found
