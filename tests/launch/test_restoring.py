"""`generative restore`: folders of images, going on, seeds by image, what is wrong with some, the report."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data.digits import load_digits
from generative.data.image_files import png
from generative.errors import ConfigError, DataError
from generative.methods.stsl.methods import METHODS
from generative.methods.stsl.problem import Problem
from launch import restoring
from launch.cli import main
from launch.restore_files import RECORD, REPORT, list_images, read_image
from launch.restore_prior import BLOCK, weights_of_files
from launch.run import train
from tests.support.actors import actors_here
from tests.support.image_runs import THREE_STEPS

TINY = (*THREE_STEPS, "sample.at_end=false")
QUICK = ("--set", "steps=4", "--set", "inner=1", "--samples", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior") / "run"
    assert train("edm/restore", [*TINY, f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Three held-out digits as PNG files, one of them in a folder below."""
    folder = tmp_path / "digits"
    (folder / "more").mkdir(parents=True)
    _, held_out = load_digits()
    for name, pixels in zip(("a.png", "b.png", "more/c.png"), held_out.pixels, strict=False):
        (folder / name).write_bytes(png(torch.from_numpy(pixels / 8.0 - 1)))
    return folder


def records(folder: Path) -> dict[str, dict]:
    return {line["file"]: line for line in map(json.loads, (folder / RECORD).read_text().splitlines())}


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_folder_is_restored_and_told(run, digits, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    words = ["restore", str(run), str(digits), str(out), "--simulate", "--operator", "inpaint:missing=0.75", *QUICK]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "3 restored" in shown
    assert "12 rows and 4 vjps a sample (a paper's NFE: 4)" in shown
    told = records(out)
    assert set(told) == {"a.png", "b.png", "more/c.png"}
    for name, line in told.items():
        folder = out / Path(name).with_suffix("")
        assert sorted(line["files"]) == sorted(path.name for path in folder.iterdir())
        assert {"truth.png", "measurement.png", "mean.png", "std.png", "sample_1.png"} <= set(line["files"])
        assert (line["cost"]["rows"], line["cost"]["paper_nfe"]) == (12, 4)
        assert 0 <= line["coverage"] <= 1
        assert len(line["residual"]) == 2
        assert np.isfinite([line["psnr"], line["psnr_mean"], line["ssim"], line["spread"]]).all()
    page = (out / REPORT).read_text()
    assert "3 images restored" in page
    assert "paper nfe" in page
    assert page.count("<img") == 3 * 6
    assert "inpaint:missing=0.75,seed=0" in page
    # again: nothing is left to do
    before = pictures(out)
    assert main(words) == 0
    assert "3 there already" in capsys.readouterr().out
    # what is missing is done again, and bit for bit as it was, at the same batch
    (out / "a" / "mean.png").unlink()
    assert main(words) == 0
    assert "1 restored" in capsys.readouterr().out
    after = pictures(out)
    assert before.keys() == after.keys()
    near(before, after)


def near(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Pictures agree but for the rounding of a grey level (kernels differ with the batch)."""
    for name, content in before.items():
        a, b = (np.asarray(Image.open(io.BytesIO(c)), dtype=int) for c in (content, after[name]))
        assert np.abs(a - b).max() <= 1, name


def test_an_image_does_not_feel_the_others(run, digits, tmp_path) -> None:
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    common = ["--simulate", *QUICK, "--operator", "superres:factor=2"]
    assert main(["restore", str(run), str(digits), str(whole), *common]) == 0
    assert main(["restore", str(run), str(digits / "b.png"), str(alone), *common, "--batch-size", "2"]) == 0
    near(pictures(alone), {name: data for name, data in pictures(whole).items() if name.startswith("b/")})
    other = tmp_path / "other"
    assert main(["restore", str(run), str(digits / "b.png"), str(other), *common, "--seed", "1"]) == 0
    assert pictures(other)["b/sample_0.png"] != pictures(alone)["b/sample_0.png"]
    assert pictures(other)["b/sample_0.png"] != pictures(other)["b/sample_1.png"]


def test_a_batch_holds_no_more_samples_than_asked(run, digits, tmp_path, monkeypatch) -> None:
    """Five samples of an image, two at once, are those of one batch."""
    rows: list[int] = []
    plain = Problem.noise

    def counted(self, z, level):
        rows.append(len(z))
        return plain(self, z, level)

    monkeypatch.setattr(Problem, "noise", counted)
    words = ["--operator", "inpaint", "--set", "steps=2", "--set", "eta=0", "--samples", "5"]
    for name, batch in (("whole", "5"), ("parts", "2")):
        out = tmp_path / name
        assert main(["restore", str(run), str(digits / "a.png"), str(out), *words, "--batch-size", batch]) == 0
    assert set(rows) == {5, 2, 1}
    near(pictures(tmp_path / "whole"), pictures(tmp_path / "parts"))
    assert [records(tmp_path / name)["a.png"]["cost"]["rows"] for name in ("whole", "parts")] == [12, 12]


def test_noise_that_cannot_be_is_told_before_held_out_images_are_written(run, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["restore", str(run), "held_out", str(out), "--operator", "inpaint", "--noise", "0"]) == 2
    assert "above 0" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "told"), [("--resize", "--resize without --simulate"), ("--checkpoint-decoder", "of a prior of pixels")]
)
def test_options_that_would_do_nothing_are_told(run, digits, tmp_path, capsys, option, told) -> None:
    out = tmp_path / "out"
    assert main(["restore", str(run), str(digits), str(out), "--operator", "inpaint", option]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_other_noise_is_simulated(run, digits, tmp_path) -> None:
    """Salt and pepper in a fifth of the pixels; missing ones are grey and have none."""
    words = ["--simulate", "--noise-model", "salt_pepper", "--noise", "0.2", *QUICK]
    for operator in ("superres:factor=1", "inpaint:missing=0.75"):
        out = tmp_path / operator[:5]
        assert main(["restore", str(run), str(digits / "a.png"), str(out), "--operator", operator, *words]) == 0
        seen, truth = (read_image(out / "a" / f"{name}.png", (1, 8, 8)) for name in ("measurement", "truth"))
        hit = (seen - truth).abs() > 0.01
        if operator.startswith("superres"):
            assert 3 <= int(hit.sum()) <= 25
            assert set(seen[hit].unique().tolist()) <= {-1.0, 1.0}
        else:
            assert int((seen.abs() < 0.01).sum()) >= 48
        assert "salt_pepper noise of 0.2" in (out / REPORT).read_text()


def test_a_given_measurement_is_taken(run, digits, tmp_path) -> None:
    """The size of a measurement, not of an image; of a mask, only what it keeps."""
    small = tmp_path / "small.png"
    small.write_bytes(png(torch.zeros(1, 4, 4)))
    out = tmp_path / "out"
    words = ["restore", str(run), str(small), str(out), *QUICK]
    assert main([*words, "--operator", "superres:factor=2"]) == 0
    line = records(out)["small.png"]
    assert "psnr" not in line
    assert "truth.png" not in line["files"]
    masked = tmp_path / "masked"
    assert main(["restore", str(run), str(digits / "a.png"), str(masked), "--operator", "inpaint", *QUICK]) == 0
    measured = read_image(masked / "a" / "measurement.png", (1, 8, 8))
    # int(64 x 0.7) pixels are missing, and grey
    assert int((measured.abs() < 0.01).sum()) >= 44


def test_bad_images_are_told_and_the_others_done(run, digits, tmp_path, capsys) -> None:
    (digits / "broken.png").write_bytes(b"no image")
    (digits / "large.png").write_bytes(png(torch.zeros(1, 9, 9)))
    out = tmp_path / "out"
    words = ["restore", str(run), str(digits), str(out), "--simulate", "--operator", "inpaint", *QUICK]
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "3 restored · 2 failed" in shown
    assert "broken.png" in shown
    assert "large.png: 9x9 pixels, where 8x8 are wanted" in shown
    assert main([*words, "--resize"]) == 1
    assert "4 restored · 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize("method", sorted(METHODS))
def test_samples_that_diverge_are_told_with_the_setting_that_helps(run, digits, tmp_path, capsys, method) -> None:
    """What a method calls the length of its steps is a setting of its own."""
    weight = METHODS[method].weight
    (digits / "b.png").unlink()
    words = ["restore", str(run), str(digits), str(tmp_path), "--simulate", "--operator", "superres:factor=2"]
    steps = ["--set", "steps=2", "--samples", "1", "--method", method, "--set", f"{weight}=1e38"]
    assert main([*words, *steps]) == 1
    assert f"smaller steps? --set {weight}=..." in capsys.readouterr().out


def test_held_out_images_are_at_hand(run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["restore", str(run), "held_out", "out", "--operator", "superres:factor=2", "--count", "2", *QUICK]
    assert main(words) == 0
    assert "2 restored" in capsys.readouterr().out
    assert set(records(tmp_path / "out")) == {"0000.png", "0001.png"}
    _, held_out = load_digits()
    found = read_image(tmp_path / "out" / "held_out" / "0001.png", (1, 8, 8))
    assert torch.equal(((found + 1) * 8).round()[0].byte(), torch.from_numpy(held_out.pixels[1, 0]))
    assert main(words) == 0
    assert "2 there already" in capsys.readouterr().out
    # fewer are asked for than an earlier command has left
    assert main([*words, "--count", "1", "--seed", "5"]) == 0
    assert "1 restored" in capsys.readouterr().out
    assert (tmp_path / "out" / "held_out" / "0001.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--operator", "superes"], "Did you mean superres?"),
        (["--operator", "superres:factor=3"], "multiples of 3"),
        (["--method", "stls"], "Did you mean stsl?"),
        (["--set", "stepps=4"], "Did you mean steps?"),
        (["--set", "steps"], "--set steps=25"),
        (["--noise", "0", "--operator", "inpaint"], "above 0"),
        (["--noise", "nan", "--operator", "inpaint"], "above 0"),
        (["--set", "init=inversion", "--operator", "inpaint"], "ddim_inversion"),
        (["--set", "weight=nan", "--operator", "inpaint"], "0 or more"),
        (["--operator", "compressed_sensing:keep=nan"], "a number"),
        (["--label", "12", "--operator", "inpaint"], "--label 12"),
        (["--noise-model", "salt_pepper", "--noise", "2", "--operator", "inpaint"], "share between 0 and 1"),
        (["--noise-model", "poisson", "--operator", "jpeg", "--simulate"], "leave out --noise-model"),
        (["--operator", "phase_retrieval"], "--simulate"),
        (["--operator", "compressed_sensing"], "--simulate"),
        (["--operator", "inpaint", "launch.a.b=1"], "launch.a"),
        (["--operator", "inpaint", "train.steps=1"], "cannot be set"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(run, digits, tmp_path, capsys, words, said) -> None:
    out = tmp_path / "out"
    assert main(["restore", str(run), str(digits), str(out), *words]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_priors_that_do_not_fit(digits, tmp_path, capsys) -> None:
    assert main(["restore", str(tmp_path / "nothing"), str(digits), str(tmp_path / "out")]) == 3
    assert "no such file or folder" in capsys.readouterr().err


def test_retrained_weights_of_the_same_size_are_seen(tmp_path) -> None:
    path = tmp_path / "unet" / "model.safetensors"
    path.parent.mkdir()
    size = 70 * BLOCK
    path.write_bytes(bytes(size))
    before = weights_of_files(tmp_path)
    assert weights_of_files(tmp_path) == before
    path.write_bytes(bytes([1]) * size)
    assert weights_of_files(tmp_path) != before
    path.write_bytes(bytes(size - 1) + bytes([1]))
    assert weights_of_files(tmp_path) != before
    path.write_bytes(b"short")
    assert len(weights_of_files(tmp_path)) == 1


def test_lists_of_images(digits, tmp_path) -> None:
    assert [file.name for file in list_images(digits, tmp_path / "out")] == ["a.png", "b.png", "more/c.png"]
    # results inside the source are no images to restore
    inside = digits / "out"
    inside.mkdir()
    (inside / "x.png").write_bytes(b"")
    assert len(list_images(digits, inside)) == 3
    (digits / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="same name"):
        list_images(digits, tmp_path / "out")
    for source, kind in ((tmp_path / "none", DataError), (tmp_path / "empty", DataError)):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(kind):
            list_images(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="among the images"):
        list_images(digits, digits)
    with pytest.raises(ConfigError, match="is a file"):
        list_images(digits, digits / "a.png")


def test_two_workers_restore_as_one(run, digits, tmp_path, monkeypatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    common = ["--simulate", "--operator", "inpaint:missing=0.75", *QUICK, "--batch-size", "2"]
    assert main(["restore", str(run), str(digits), str(one), *common]) == 0
    actors = actors_here(monkeypatch, restoring)
    assert main(["restore", str(run), str(digits), str(two), *common, "--workers", "2"]) == 0
    assert actors.workers == [2]
    assert pictures(one) == pictures(two)
