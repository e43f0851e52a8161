"""Erasing, drawing, measuring and debiasing from ids on the hub and from single files, as from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evaluation.erasure import labels, opening
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.formats import PARTIAL, TRANSFORM, read_transform
from launch.cli import main
from launch.erasing import FULL, RECORD, REPORT
from tests.support.hub import COMMIT, loopback_hub

pytest.importorskip("diffusers")

NAME = "someone/tiny"
CONCEPT = ("--concept", "church", "--preset", "easy_object", "--images", "1")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole pipeline, with a safety checker that must not be fetched for drawing, and a pickle."""
    from tests.support.pipelines import stable_diffusion

    folder = tmp_path_factory.mktemp("remote") / "tiny"
    stable_diffusion().save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "whole.safetensors").write_bytes(b"another layout of all of it")
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache, and images in a few steps."""
    from diffusers import StableDiffusionPipeline

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = StableDiffusionPipeline.__call__

    def few(pipe, *args, **more):
        return whole(pipe, *args, **(more | {"num_inference_steps": 2, "height": 16, "width": 16}))

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", few)


def bright(images: torch.Tensor) -> torch.Tensor:
    return images.mean((1, 2, 3)) > 0


def test_an_id_on_the_hub(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = loopback_hub(monkeypatch, {NAME: remote}, tmp_path / "hub")
    out, local = tmp_path / "out", tmp_path / "local"
    assert main(["erase", f"hub:{NAME}", "--revision", "v1", *CONCEPT, "--format", "transform", "--out", str(out)]) == 0
    assert json.loads((out / RECORD).read_text())["images"] == "drawn"
    assert calls[0][:2] == (NAME, "v1")
    assert not any(file.startswith(("vae", "scheduler")) for file in calls[0][2])
    assert {revision for _, revision, _ in calls[1:]} == {COMMIT}
    assert any(file.startswith("vae/") for file in calls[1][2])
    fetched = {file for _, _, files in calls for file in files}
    assert not any(file.endswith(".bin") or file.startswith(("safety_checker", "whole")) for file in fetched)
    edits = read_transform(out / TRANSFORM)
    assert (edits.base, edits.revision) == (f"hub:{NAME}", "v1")
    assert main(["erase", str(remote), *CONCEPT, "--format", "full", "--out", str(local)]) == 0
    pages = [(folder / REPORT).read_text() for folder in (out, local)]
    images = [[part.split('"')[0] for part in page.split("data:image/png;base64,")[1:]] for page in pages]
    assert images[0] == images[1]
    assert len(images[0]) == 2
    measure_one(out, tmp_path, monkeypatch)
    assert main(["erase", "hub:someone/else", *CONCEPT, "--out", str(tmp_path / "no")]) == 3
    assert "not to be had from the hub: 404" in capsys.readouterr().err


def measure_one(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    from evaluation.erasure.detectors import Classes

    shows = Classes(
        lambda images: torch.stack([-images.mean((1, 2, 3)), images.mean((1, 2, 3))], 1), (1,), "brightness"
    )
    monkeypatch.setattr(opening, "DETECTORS", {"bright": lambda what, cache: shows})
    (tmp_path / "set.csv").write_text("prompt,seed\na church,3\n")
    words = ["--prompts", str(tmp_path / "set.csv"), "--detector", "bright", "--json", str(tmp_path / "found.json")]
    assert main(["measure-erasure", str(out), *words, *more]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["after"]["n"] == 1


def test_a_whole_folder_from_the_hub_is_whole(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loopback_hub(monkeypatch, {NAME: remote}, tmp_path / "hub")
    words = ("--concept", "church", "--preset", "uce", "--format", "full")
    assert main(["erase", NAME, *words, "--out", str(tmp_path / "out")]) == 0
    made = {str(path.relative_to(tmp_path / "out" / FULL)) for path in (tmp_path / "out" / FULL).rglob("*.*")}
    wanted = {str(path.relative_to(remote)) for path in remote.rglob("*.*")}
    assert made == wanted - {"unet/diffusion_pytorch_model.bin", "whole.safetensors"}


@pytest.mark.parametrize("text_on_hub", [False, True])
def test_a_single_file_draws_with_the_pipeline_that_it_belongs_to(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_on_hub: bool
) -> None:
    calls = loopback_hub(monkeypatch, {NAME: remote}, tmp_path / "hub")
    path = tmp_path / "mine.safetensors"
    weights = load_file(remote / "unet" / "diffusion_pytorch_model.safetensors")
    path.write_bytes((remote / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    text = f"hub:{NAME}@v2" if text_on_hub else str(remote)
    out, local = tmp_path / "out", tmp_path / "local"
    assert main(["erase", str(path), "--text", text, *CONCEPT, "--out", str(out)]) == 0
    assert main(["erase", str(remote), *CONCEPT, "--out", str(local)]) == 0
    assert json.loads((out / RECORD).read_text())["images"] == "drawn"
    assert load_file(out / PARTIAL).keys() <= weights.keys()
    pages = [(folder / REPORT).read_text().split("data:image/png;base64,")[1:] for folder in (out, local)]
    assert [part.split('"')[0] for part in pages[0]] == [part.split('"')[0] for part in pages[1]]
    if text_on_hub:
        assert [revision for _, revision, _ in calls] == ["v2", COMMIT]
        assert not any(file.startswith("unet/") and file.endswith(".safetensors") for _, _, f in calls for file in f)
    measure_one(out, tmp_path, monkeypatch)


def test_a_single_file_without_a_pipeline_cannot_draw(
    remote: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(remote / "unet" / "diffusion_pytorch_model.safetensors")
    words = ["--concept", "church", "--attribute", "a dog", "--attribute", "a tree", "--out", str(tmp_path / "out")]
    assert main(["debias", path, *words]) == 3
    assert "a file of weights alone, which cannot draw" in capsys.readouterr().err


def test_debiasing_an_id_on_the_hub(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = loopback_hub(monkeypatch, {NAME: remote}, tmp_path / "hub")
    monkeypatch.setattr(
        labels, "LABELS", {"bright": lambda what, attributes, cache: lambda images: bright(images).long()}
    )
    words = ["--concept", "church", "--attribute", "a dog", "--attribute", "a tree", "--labels", "bright"]
    words += ["--images", "2", "--rounds", "1", "--revision", "v1", "--out", str(tmp_path / "out")]
    assert main(["debias", NAME, *words]) == 0
    assert calls[0][:2] == (NAME, "v1")
    edits = read_transform(tmp_path / "out" / TRANSFORM)
    assert (edits.base, edits.revision, len(edits.erased)) == (NAME, "v1", 1)
    assert open_model(NAME, "v1").fingerprint(open_model(NAME, "v1").streams()) == edits.base_hash


def test_a_file_in_the_layout_of_compvis_draws_what_its_folder_draws(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    from tests.support.compvis import compvis_name
    from tests.support.pipelines import stable_diffusion

    pipe = stable_diffusion()
    torch.manual_seed(11)
    pipe.unet = UNet2DConditionModel.from_config({**pipe.unet.config, "layers_per_block": 2})
    pipe.save_pretrained(tmp_path / "folder")
    state = {f"model.diffusion_model.{compvis_name(name)}": one for name, one in pipe.unet.state_dict().items()}
    save_file(state | {"first_stage_model.other": torch.zeros(1)}, tmp_path / "whole.safetensors")
    folder, alone = tmp_path / "by_folder", tmp_path / "by_file"
    assert main(["erase", str(tmp_path / "folder"), *CONCEPT, "--out", str(folder)]) == 0
    file, text = str(tmp_path / "whole.safetensors"), str(tmp_path / "folder")
    assert main(["erase", file, "--text", text, *CONCEPT, "--out", str(alone)]) == 0
    assert json.loads((alone / RECORD).read_text())["images"] == "drawn"
    pages = [(out / REPORT).read_text().split("data:image/png;base64,")[1:] for out in (folder, alone)]
    assert [part.split('"')[0] for part in pages[0]] == [part.split('"')[0] for part in pages[1]]
    edited = [load_file(out / PARTIAL) for out in (folder, alone)]
    assert edited[0].keys() == edited[1].keys()
    assert all(torch.equal(weight, edited[1][name]) for name, weight in edited[0].items())


def test_an_edit_of_the_values_of_a_model_with_pooled_text(tmp_path: Path) -> None:
    """A whole UNet's file has the pooled text's matrix too, which --include to_v leaves out."""
    from tests.support.pipelines import stable_diffusion_xl

    stable_diffusion_xl().save_pretrained(tmp_path / "xl")
    model, words = str(tmp_path / "xl"), ["--include", "to_v"]
    whole = ["--concept", "church", "--preset", "uce", *words, "--format", "full", "--out", str(tmp_path / "theirs")]
    assert main(["erase", model, *whole]) == 0
    file = tmp_path / "theirs" / FULL / "unet" / "diffusion_pytorch_model.safetensors"
    assert main(["erase", model, "--edited", str(file), *words, "--out", str(tmp_path / "ours")]) == 0
    wanted, found = load_file(file), load_file(tmp_path / "ours" / PARTIAL)
    assert found
    assert all(name.endswith("to_v.weight") for name in found)
    for name, weight in found.items():
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-4)
