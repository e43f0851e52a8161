"""A small text-to-image model from its training to an erasure whose report shows images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from evaluation.erasure import labels, opening
from evaluation.images.small_network import SmallSettings
from generative.hub.pixel_pipeline import read_pipeline
from generative.methods.rece.formats import TRANSFORM, read_transform
from launch.cli import main
from launch.erasing import RECORD, REPORT
from launch.run import train
from tests.support.image_runs import SMALL_LOOKS
from tests.support.schema import check_lines

pytest.importorskip("diffusers")

TINY = (
    "train.steps=2",
    "train.batch_size=16",
    "train.sample_every=null",
    "train.checkpoint.every_steps=2",
    "train.validation.every_steps=2",
    "train.validation.samples=32",
    *SMALL_LOOKS,
    "method.network.channels=[8,8]",
    "method.network.text_width=16",
    "method.network.text_layers=1",
    "method.sampling.steps=2",
)


def test_train_export_erase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run, model, out = tmp_path / "run", tmp_path / "model", tmp_path / "out"
    assert train("text_to_image/quickstart", [*TINY, f"run.dir={run}"]) == 0
    check_lines(run)
    assert (run / "samples" / "step_000002.png").stat().st_size > 100
    assert main(["export", str(run), "--to", str(model), "--weights", "ema", "--layout", "diffusers"]) == 0
    assert {path.name for path in model.iterdir()} == {
        "model_index.json",
        "unet",
        "text_encoder",
        "tokenizer",
        "scheduler",
    }
    assert read_pipeline(model).sampling.steps == 2
    assert len({path.stat().st_mode for path in model.rglob("*") if path.is_file()}) == 1
    again = ["export", str(run), "--to", str(tmp_path / "half"), "--layout", "diffusers", "--dtype", "bf16"]
    assert main(again) == 2
    assert "--dtype bf16 with --layout diffusers" in capsys.readouterr().err
    words = ["--concept", "seven", "--preset", "small", "--images", "2", "--out", str(out)]
    assert main(["erase", str(model), *words]) == 0
    record = json.loads((out / RECORD).read_text())
    assert record["images"] == "drawn"
    assert (out / REPORT).read_text().count("data:image/png;base64,") == 4
    before = ["--source", "a photo of a seven", "--target", "a photo of a three", "--steps", "3"]
    image, edits = run / "samples" / "one.png", tmp_path / "edits"
    Image.new("L", (8, 8), 128).save(image)
    assert main(["edit", str(model), str(image), str(edits), *before, "--mode", "replace"]) == 0
    assert (edits / "one" / "edit.png").is_file()
    prompts, figures = tmp_path / "sevens.csv", tmp_path / "figures.json"
    prompts.write_text("prompt,evaluation_seed,guidance\na photo of a seven,0,2\nseven,1,2\nhandwritten seven,2,\n")
    small = partial(opening.digit_judge, settings=SmallSettings(steps=3, width=4, features=8))
    for module in (opening, labels):
        monkeypatch.setattr(module, "digit_judge", small)
    told = ["--prompts", str(prompts), "--detector", "digits:seven", "--json", str(figures)]
    assert main(["measure-erasure", str(out), *told]) == 0
    measured = json.loads(figures.read_text())
    assert measured["after"]["n"] == len(measured["flags"]) == 3
    assert measured["before"]["value"] == sum(before for before, _ in measured["flags"]) / 3
    assert "top-1 is class 7" in measured["after"]["protocol"]
    debiased = tmp_path / "debiased"
    words = [*("--concept", "seven", "--attribute", "one", "--attribute", "two", "--attribute", "three")]
    assert (
        main(
            [
                "debias",
                str(model),
                *words,
                "--labels",
                "digits",
                "--images",
                "3",
                "--rounds",
                "2",
                "--out",
                str(debiased),
            ]
        )
        == 0
    )
    assert "alpha" in capsys.readouterr().out
    (edit,) = read_transform(debiased / TRANSFORM).told()["edits"]
    assert [round(sum(row), 6) for row in edit["shares"]] == [1, 1]
    assert len(edit["alpha"]) == 3
    assert main(["measure-erasure", str(model), *told]) == 3
    assert "the folder of an erasure" in capsys.readouterr().err
    assert main(["erase", str(model), "--concept", "seven", "--guide", "seven", "--out", str(tmp_path / "no")]) == 2
    assert "is the concept itself" in capsys.readouterr().err
