"""Requests and models that cannot be: each is told before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generative.errors import CheckpointError, ConfigError, DataError, GenerativeError
from generative.hub.erasing import Asked, erase_model
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.request import Request
from tests.generative.hub.erasing import erased
from tests.support.pipelines import clip_tokenizer, golden_folder

pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(["   "], [" "]), "tokenizes to nothing"),
        (Request(["   "], ["art"]), "tokenizes to nothing"),
        (Request(["Nudity"], ["nudity "]), "is the concept itself"),
        (Request([], [" "]), "0 concepts"),
        (Request(["a", "b", "c"], ["d", "e"]), "3 concepts and 2 guides"),
        (Request(["dog", "Dog"], [" "]), "given twice"),
        (Request(["dog"], [" "], keep=["DOG"]), "to be erased and to stay"),
        (Request(["dog " * 200], [" "]), "the text encoder reads 75"),
    ],
)
def test_requests_that_cannot_be(folder: Path, tmp_path: Path, request_: Request, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        erase_model(open_model(str(folder)), Asked(request_, cache=tmp_path))


def broken(folder: Path, target: Path, change: str) -> Path:
    """The golden model with one thing wrong."""
    golden_folder(target)
    unet = target / "unet"
    weights = unet / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    name = next(n for n in state if n.endswith("attn2.to_k.weight"))
    if change == "nan":
        state[name][0, 0] = torch.nan
    elif change == "quantised":
        state[name] = state[name].to(torch.int8)
    elif change == "no attention":
        state = {n: w for n, w in state.items() if "attn2" not in n}
    elif change == "class":
        config = json.loads((unet / "config.json").read_text())
        (unet / "config.json").write_text(json.dumps(config | {"_class_name": "UNet1DModel"}))
    elif change == "pipeline":
        (target / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    elif change == "encoder":
        config = json.loads((target / "text_encoder" / "config.json").read_text())
        (target / "text_encoder" / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2Model"]}))
    elif change in ("part of an encoder", "another encoder"):
        path = target / "text_encoder" / "model.safetensors"
        text = load_file(path)
        part = next(name for name in text if name.endswith("fc1.weight"))
        wanted = {name: one for name, one in text.items() if name != part}
        save_file(wanted if change == "part of an encoder" else wanted | {part: text[part][:-1].clone()}, path)
    save_file(state, weights)
    if change == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif change == "no weights":
        weights.unlink()
    elif change == "no index":
        (target / "model_index.json").unlink()
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nan", "1 numbers that are NaN"),
        ("quantised", "numbers of type int8"),
        ("no attention", "it reads no text"),
        ("class", "unknown class of denoiser 'UNet1DModel'"),
        ("pipeline", "without a unet or transformer"),
        ("encoder", "class Qwen2Model"),
        ("part of an encoder", "1 weights are not there"),
        ("another encoder", "text_encoder or .* cannot be read"),
        ("cut", "cannot be read"),
        ("no weights", "no weights in safetensors"),
        ("no index", "has no model_index.json"),
    ],
)
def test_models_that_cannot_be(folder: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(GenerativeError, match=message):
        erased(broken(folder, tmp_path / "broken", change), tmp_path)


def test_a_guide_whose_embedding_is_not_finite(folder: Path, tmp_path: Path) -> None:
    target = golden_folder(tmp_path / "broken")
    path = target / "text_encoder" / "model.safetensors"
    state = load_file(path)
    table = next(name for name in state if name.endswith("token_embedding.weight"))
    (number,) = clip_tokenizer()("art", add_special_tokens=False)["input_ids"]
    state[table][number] = torch.nan
    save_file(state, path, {"format": "pt"})
    with pytest.raises(DataError, match="the embeddings of 'art'"):
        erase_model(open_model(str(target)), Asked(Request(["nudity"], ["art"]), cache=tmp_path))


def test_an_edit_that_the_number_format_cannot_hold(folder: Path, tmp_path: Path) -> None:
    """Written without a word, it would draw nothing but NaN."""
    for strength in (1.0, 1e6):
        target = golden_folder(tmp_path / f"half{strength:g}")
        path = target / "unet" / "diffusion_pytorch_model.safetensors"
        save_file({name: weight.half() for name, weight in load_file(path).items()}, path)
        if strength == 1:
            assert all(weight.isfinite().all() for weight in erased(target, tmp_path).edited.values())
        else:
            with pytest.raises(ConfigError, match="float16 cannot hold"):
                erased(target, tmp_path, strength=strength)


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder here"):
        open_model(str(tmp_path / "nothing"))
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        open_model(str(tmp_path / "model.ckpt"))
