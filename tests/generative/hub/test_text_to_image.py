"""Reading models: the golden one as a folder and as a file, without diffusers; what is wrong is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from generative.errors import CheckpointError, ConfigError
from generative.hub.erased_files import patch_safetensors, read_foreign, write_model
from generative.hub.erasing import Asked, erase_model
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.config import PRESETS, EraseConfig, StepConfig
from generative.methods.rece.formats import (
    PARTIAL,
    TRANSFORM,
    Edits,
    edited_weights,
    partial_bytes,
    read_transform,
    transform_bytes,
)
from generative.methods.rece.request import Request
from tests.generative.hub.erasing import erased
from tests.generative.methods.rece import golden

pytest.importorskip("transformers")
CASE = golden.load("nudity_single")


def test_embeddings_and_readers(folder: Path) -> None:
    model = open_model(str(folder))
    (stream,) = model.streams()
    assert (model.kind, stream.name, stream.width) == ("UNet2DConditionModel", "text", 32)
    assert {name.removesuffix(".weight") for name in stream.readers} == {
        name.removesuffix(".weight") for name in CASE.weights("w0")
    }
    for prompt, text in zip(
        model.encoders().encode(CASE.settings["texts"])["text"], CASE.settings["texts"], strict=True
    ):
        wanted = CASE.prompt(text)
        torch.testing.assert_close(prompt.segments[0].rows, wanted.segments[0].rows, rtol=0, atol=1e-5)
        assert (prompt.segments[0].valid, prompt.content) == (wanted.segments[0].valid, wanted.content)


def test_end_to_end_gives_the_released_results(folder: Path, tmp_path: Path) -> None:
    """Embeddings are computed here in float32: the golden float32 tolerance, with weights rounded to float32."""
    found = erased(folder, tmp_path)
    told = CASE.settings["dev_f32_vs_f64_maxabs_relfro"]["rece/epoch2/w"]
    for name, wanted in CASE.weights("rece/epoch2/w", single=True).items():
        assert found.edited[name].dtype == torch.float32
        assert float((found.edited[name] - wanted).abs().max()) <= 5 * told[0]
    assert found.rounding() < 1e-6


def test_stack_and_undo_bitwise(folder: Path, tmp_path: Path) -> None:
    first = erased(folder, tmp_path)
    assert first.edits is not None
    (tmp_path / TRANSFORM).write_bytes(transform_bytes(first.edits))
    kept = read_transform(tmp_path / TRANSFORM)
    second = erased(folder, tmp_path, kept, "golf")
    assert second.edits is not None
    assert [one.about["concepts"] for one in second.edits.erased] == [["nudity"], ["golf"]]
    names = second.streams[0].readers
    stacked = first.edits.total()["text"].matrix @ second.edits.erased[1].transforms["text"].matrix
    for name in names:
        torch.testing.assert_close(
            second.edited[name].double(), second.weights[name].double() @ stacked, rtol=0, atol=1e-6
        )
    undone = Edits(kept.base, kept.base_hash, second.edits.erased[:-1])
    again = edited_weights(second.weights, second.streams, undone.total())
    assert all(torch.equal(again[name], first.edited[name]) for name in names)
    nothing = edited_weights(second.weights, second.streams, Edits(kept.base, kept.base_hash).total())
    assert all(torch.equal(nothing[name], first.weights[name]) for name in names)


def test_strength_is_each_erasures_own(folder: Path, tmp_path: Path) -> None:
    first = erased(folder, tmp_path, strength=0.5)
    assert first.edits is not None
    (tmp_path / TRANSFORM).write_bytes(transform_bytes(first.edits))
    second = erased(folder, tmp_path, read_transform(tmp_path / TRANSFORM), "golf")
    assert second.edits is not None
    half, whole = (one.transforms["text"] for one in second.edits.erased)
    wanted = (torch.eye(32, dtype=torch.float64) + half.matrix) / 2 @ whole.matrix
    torch.testing.assert_close(second.edits.total()["text"].matrix, wanted)


def test_a_transform_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    found = erased(folder, tmp_path).edits
    assert found is not None
    path = tmp_path / TRANSFORM
    path.write_bytes(transform_bytes(found))
    back = read_transform(path)
    assert back.told() == json.loads(json.dumps(found.told()))
    assert torch.equal(back.total()["text"].p, found.total()["text"].p)
    with pytest.raises(CheckpointError, match="is of a model with the hash"):
        back.check_base("0" * 64)
    for damage, message in (
        (b"x" * 20, "cannot be read as a transform"),
        (partial_bytes({"a": torch.ones(2)}), "is no"),
    ):
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=message):
            read_transform(path)


@pytest.mark.parametrize("damage", ["shape", "nan", "missing", "edits"])
def test_a_transform_with_a_part_damaged_is_refused(folder: Path, tmp_path: Path, damage: str) -> None:
    """Passed over, an erasure without its tensors would be one that was silently undone."""
    path = tmp_path / TRANSFORM
    path.write_bytes(transform_bytes(erased(folder, tmp_path).edits))
    with safe_open(path, framework="pt") as file:
        told, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if damage == "shape":
        tensors["0/text/p"] = tensors["0/text/p"][1:].contiguous()
    elif damage == "nan":
        tensors["0/text/q"][0, 0] = torch.nan
    elif damage == "missing":
        tensors = {}
    else:
        told["edits"] = json.dumps(json.loads(told["edits"]) | {"edits": ["x"]})
    save_file(tensors, path, told)
    with pytest.raises(CheckpointError, match="cannot be read as a transform"):
        read_transform(path)


def test_whole_model_and_its_untouched_parts(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = erased(folder, tmp_path)
    write_model(found.model, found.edited, tmp_path / "model")
    assert {path: path.read_bytes() for path in before} == before
    new, old = (load_file(f / "unet" / "diffusion_pytorch_model.safetensors") for f in (tmp_path / "model", folder))
    assert new.keys() == old.keys()
    for name, weight in new.items():
        assert torch.equal(weight, found.edited.get(name, old[name]))
    write_model(open_model(str(tmp_path / "model")), found.weights, tmp_path / "back")
    unet = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "back" / unet).read_bytes() == (folder / unet).read_bytes()


def test_copies_that_the_edit_does_not_reach_stay_behind(folder: Path, tmp_path: Path) -> None:
    """fp16 and other formats of the denoiser, and files of the whole model: who loads them has the concept back."""
    source, part = tmp_path / "source", Path("unet")
    shutil.copytree(folder, source)
    name, plain = "diffusion_pytorch_model", (source / part / "diffusion_pytorch_model.safetensors")
    state = load_file(plain)
    plain.unlink()
    shards = {key: f"{name}-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(state)}
    for shard in set(shards.values()):
        save_file({key: w for key, w in state.items() if shards[key] == shard}, source / part / shard)
    index = source / part / f"{name}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    unedited = [f"unet/{name}.fp16.safetensors", f"unet/{name}.bin", "whole.safetensors", "whole.ckpt"]
    for other in unedited:
        (source / other).write_bytes(b"unedited")
    (source / "unet" / f"{name}.safetensors.index.fp16.json").write_text('{"weight_map": {"a": "a.fp16.safetensors"}}')
    found = erased(source, tmp_path)
    write_model(found.model, found.edited, tmp_path / "model")
    left = {path.name for path in source.rglob("*")} - {path.name for path in (tmp_path / "model").rglob("*")}
    assert left == {*(Path(other).name for other in unedited), f"{name}.safetensors.index.fp16.json"}
    again = open_model(str(tmp_path / "model"))
    assert all(torch.equal(w, found.edited[key]) for key, w in again.read(found.edited).items())


def compvis(folder: Path, path: Path) -> None:
    """The attention of the golden UNet under names of the CompVis layout."""
    state = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    places = {
        "down_blocks.0.attentions.0.": "input_blocks.1.1.",
        "mid_block.attentions.0.": "middle_block.1.",
        "up_blocks.1.attentions.0.": "output_blocks.3.1.",
        "up_blocks.1.attentions.1.": "output_blocks.4.1.",
    }
    renamed = {}
    for ours, theirs in places.items():
        renamed |= {name.replace(ours, theirs): t for name, t in state.items() if name.startswith(ours)}
    save_file({f"model.diffusion_model.{name}": t for name, t in renamed.items()}, path)


def test_a_single_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    compvis(folder, path)
    whole = erased(folder, tmp_path)
    alone = erased(path, tmp_path, text_folder=folder)
    assert alone.edited.keys() == whole.edited.keys()
    assert all(torch.equal(alone.edited[name], weight) for name, weight in whole.edited.items())
    write_model(alone.model, alone.edited, tmp_path / "out")
    again = open_model(str(tmp_path / "out" / "model.safetensors"))
    assert all(torch.equal(w, whole.edited[name]) for name, w in again.read(again.streams()[0].readers).items())
    with pytest.raises(CheckpointError, match="without a tokenizer"):
        erased(path, tmp_path)


def test_foreign_edits(folder: Path, tmp_path: Path) -> None:
    found = erased(folder, tmp_path)
    streams = list(found.streams)
    (tmp_path / PARTIAL).write_bytes(partial_bytes(found.edited))
    torch.save(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"), tmp_path / "rece.pt")
    torch.save({"state_dict": {f"unet.{n}": w for n, w in found.edited.items()}, "step": 3}, tmp_path / "inner.pt")
    for name, wanted in ((PARTIAL, found.edited), ("rece.pt", found.weights), ("inner.pt", found.edited)):
        read = read_foreign(tmp_path / name, streams)
        assert read.keys() == wanted.keys()
        assert all(torch.equal(read[key], wanted[key]) for key in wanted)
    save_file({"other.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="has none of the matrices"):
        read_foreign(tmp_path / "other.safetensors", streams)


def test_values_only(folder: Path, tmp_path: Path) -> None:
    found = erased(folder, tmp_path, include="to_v")
    assert found.edits is not None
    assert all(name.endswith("to_v.weight") for name in found.edited)
    assert len(found.edited) == 4
    with pytest.raises(ConfigError, match="matches 'to_q"):
        erased(folder, tmp_path, include="to_q$")
    with pytest.raises(CheckpointError, match="all of them read the same text"):
        found.edits.at_run_time()
    with pytest.raises(ConfigError, match="is of the matrices include='to_v'"):
        erased(folder, tmp_path, found.edits, "golf")


def test_the_technique_tensor_goes_layer_by_layer(folder: Path, tmp_path: Path) -> None:
    step = StepConfig(technique="tensor")
    found = erased(folder, tmp_path, config=EraseConfig(start=step, epochs=0))
    plain = erased(folder, tmp_path, config=EraseConfig(epochs=0))
    assert found.edits is None
    assert all(not torch.equal(found.edited[name], plain.edited[name]) for name in plain.edited)


def test_texts_to_keep_are_summed_once(folder: Path, tmp_path: Path) -> None:
    read: list[int] = []

    def keep() -> list[str]:
        read.append(1)
        return ["an oak", "monet"]

    request = Request(["nudity"], [" "], PRESETS["nudity"].erase)
    first = erase_model(open_model(str(folder)), Asked(request, keep, cache=tmp_path))
    files = sorted(path.name for path in tmp_path.iterdir())
    again = erase_model(open_model(str(folder)), Asked(request, keep, cache=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert first.tasks["text"].kept.texts == 3
    assert all(torch.equal(again.edited[name], weight) for name, weight in first.edited.items())
    other = erased(folder, tmp_path)
    assert any(not torch.equal(other.edited[name], weight) for name, weight in first.edited.items())


def test_bytes_are_put_in_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.arange(4.0), "y": torch.ones(2, 3).bfloat16()}, path, {"note": "kept"})
    patch_safetensors(path, {"y": torch.full((2, 3), 2.0).bfloat16()})
    found = load_file(path)
    assert torch.equal(found["x"], torch.arange(4.0))
    assert float(found["y"].sum()) == 12
    assert b"kept" in path.read_bytes()
    for wrong in ({"z": torch.ones(1)}, {"x": torch.ones(4).half()}, {"x": torch.ones(5)}):
        with pytest.raises(CheckpointError, match="has no such"):
            patch_safetensors(path, wrong)
