"""`generative edit`: folders of images, going on, corrupted images, what is wrong with some, the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data.image_files import png
from launch.cli import main
from launch.edit_files import RECORD
from launch.restore_files import REPORT
from tests.support.captions import tiny_pipeline

pytest.importorskip("diffusers")
TEXTS = ("--source", "a photo of a dog", "--target", "a photo of a tree")
QUICK = ("--steps", "4", "--rounds", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("sd") / "model")


@pytest.fixture(scope="module")
def side(model: Path) -> int:
    from generative.hub.editable import open_editable

    editable = open_editable(model, torch.device("cpu"))
    return editable.prior_of(editable.embed("")).image[-1]


@pytest.fixture
def photos(tmp_path: Path, side: int) -> Path:
    """Two images, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "more/b.png")):
        pixels = torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        (folder / name).write_bytes(png(pixels))
    return folder


def records(folder: Path) -> dict[str, dict]:
    return {line["file"]: line for line in map(json.loads, (folder / RECORD).read_text().splitlines())}


def test_a_folder_is_edited_told_and_not_edited_again(model, photos, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    words = ["edit", str(model), str(photos), str(out), *TEXTS, *QUICK]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "words that change: tree" in shown
    assert "2 edited" in shown
    told = records(out)
    assert set(told) == {"a.png", "more/b.png"}
    for name, line in told.items():
        folder = out / Path(name).with_suffix("")
        assert sorted(line["files"]) == sorted(path.name for path in folder.iterdir())
        assert {"input.png", "reconstruction.png", "edit.png", "attention_0_tree.png"} == set(line["files"])
        assert line["cost"]["rows"] == 4 * 2 + 4 * 3
        assert line["change"] > 0
    page = (out / REPORT).read_text()
    assert page.count("data:image/png;base64,") == 8
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    (out / "a" / "edit.png").unlink()
    assert main(words) == 0
    assert "1 edited · 1 there already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before


def test_a_corrupted_image_is_restored_first(model, photos, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    corrupted = ("--operator", "superres:factor=4", "--simulate", "--noise", "0.1")
    assert main(["edit", str(model), str(photos / "a.png"), str(out), *TEXTS, *QUICK, *corrupted]) == 0
    line = records(out)["a.png"]
    assert "restored.png" in line["files"]
    assert line["cost"]["vjps"] > 0
    assert (
        np.asarray(Image.open(out / "a" / "input.png")).shape[0]
        == np.asarray(Image.open(out / "a" / "restored.png")).shape[0] // 4
    )


def test_an_image_that_does_not_fit_is_told_and_the_others_go_on(model, photos, tmp_path, capsys) -> None:
    Image.new("RGB", (7, 9)).save(photos / "small.png")
    (photos / "torn.png").write_bytes(b"\x89PNG")
    assert main(["edit", str(model), str(photos), str(tmp_path / "out"), *TEXTS, *QUICK]) == 1
    shown = capsys.readouterr().out
    assert "2 edited · 2 failed" in shown
    assert "small.png" in shown
    assert "torn.png" in shown
    assert "to fix:" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--source", "a dog", "--target", "a fat dog", "--mode", "replace"), "2 words"),
        ((*TEXTS, "--mode", "swap"), "mode 'swap'"),
        ((*TEXTS, "--mode", "reweight", "--weight", "tree"), "--weight tree"),
        (("--source", " ", "--target", "a dog"), "no word"),
        ((*TEXTS, "--simulate"), "--simulate without --operator"),
        ((*TEXTS, "--operator", "superres:factor=4", "--noise", "0"), "--noise 0"),
        ((*TEXTS, "--operator", "phase_retrieval"), "no image can be read off"),
        ((*TEXTS, "--operator", "compressed_sensing"), "are no pictures"),
        ((*TEXTS, "--cross", "2"), "cross=2"),
        ((*TEXTS, "--contrast", "clip:nowhere"), "--contrast clip:nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(model, photos, tmp_path, capsys, words, told) -> None:
    out = tmp_path / "out"
    assert main(["edit", str(model), str(photos), str(out), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "to fix:" in error
    assert not out.exists()


def test_the_contrastive_term_takes_a_vision_encoder_of_clip(model, photos, tmp_path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path / "clip")
    out = tmp_path / "out"
    words = [*TEXTS, *QUICK, "--contrast", f"clip:{tmp_path / 'clip'}"]
    assert main(["edit", str(model), str(photos / "a.png"), str(out), *words]) == 0
    assert records(out)["a.png"]["cost"]["vjps"] == 1  # the later 0.4 of 4 steps, but for the noiseless last level
