"""`generative erase`: folders with edits and a report; stacking and undo; what cannot be."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generative.hub import folder as hub_folder
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.encoders import Encoder
from generative.methods.rece.formats import LORA, PARTIAL, TRANSFORM, read_transform
from launch import erase_asked
from launch.cli import main
from launch.erasing import FULL, RECORD, REPORT
from tests.support.pipelines import golden_folder

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(model: Path, out: Path, *options: str) -> int:
    return main(["erase", str(model), "--out", str(out), *options])


def base_weights(model: Path) -> dict[str, torch.Tensor]:
    opened = open_model(str(model))
    return opened.read(opened.streams()[0].readers)


def test_all_formats_and_the_report(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text("monet\nan oak <script>alert(1)</script>\n")
    formats = [word for name in ("transform", "partial", "lora", "full") for word in ("--format", name)]
    out = tmp_path / "out"
    assert run(model, out, "--concept", "nudity", "--guide", " ", "--preserve", str(keep), *formats) == 0
    assert "erased" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {TRANSFORM, PARTIAL, LORA, FULL, REPORT, RECORD}
    partial = load_file(out / PARTIAL)
    whole = load_file(out / FULL / "unet" / "diffusion_pytorch_model.safetensors")
    original = base_weights(model)
    total = read_transform(out / TRANSFORM).total()["text"]
    low_rank = load_file(out / LORA)
    for name, weight in original.items():
        assert not torch.equal(partial[name], weight)
        assert torch.equal(partial[name], total.on_weight(weight))
        assert torch.equal(whole[name], partial[name])
        module = f"unet.{name.removesuffix('.weight')}"
        product = low_rank[f"{module}.lora_B.weight"] @ low_rank[f"{module}.lora_A.weight"]
        torch.testing.assert_close(weight + product, partial[name], rtol=0, atol=1e-5)
    record = json.loads((out / RECORD).read_text())
    text = record["streams"]["text"]
    assert 0 < text["erased"] < 1
    assert [row["epoch"] for row in text["epochs"]] == [1, 2, 3]
    assert all(row["norm"] > 0 and 0 < row["smallest"] <= 1 for row in text["epochs"])
    assert {row[1] for row in record["neighbours"]} == {"kept", "vocabulary"}
    assert record["edits"]["edits"][0]["kept_texts"] == 3
    page = (out / REPORT).read_text()
    assert "<script>alert" not in page
    assert "monet" in page
    assert "smallest singular value" in page
    assert "None were asked for" in page


def test_stack_then_undo_both(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, back, base = (tmp_path / name for name in ("one", "two", "back", "base"))
    assert run(model, one, "--concept", "nudity") == 0
    assert run(one, two, "--concept", "church", "--guide", "art", "--preset", "easy_object") == 0
    assert run(two, back, "--undo") == 0
    assert run(back, base, "--undo", "--format", "partial", "--format", "full") == 0
    assert "the base model, bitwise" in capsys.readouterr().out
    first, second, again, original = (load_file(folder / PARTIAL) for folder in (one, two, back, base))
    for name, weight in base_weights(model).items():
        assert torch.equal(again[name], first[name])
        assert torch.equal(original[name], weight)
        assert not torch.equal(second[name], first[name])
    unet = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (base / FULL / unet).read_bytes() == (model / unet).read_bytes()
    assert run(two, tmp_path / "more", "--undo", "--concept", "nudity") == 2
    assert "--undo alone" in capsys.readouterr().err
    assert run(back, tmp_path / "more", "--undo", "--format", "lora") == 2
    assert "a LoRA of the base model" in capsys.readouterr().err
    assert run(base, tmp_path / "more", "--undo") == 2
    assert "no erasure to take back" in capsys.readouterr().err


def test_dial_and_uce(model: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path / "half", "--concept", "nudity", "--method", "uce", "--strength", "0.5") == 0
    assert run(model, tmp_path / "whole", "--concept", "nudity", "--preset", "uce") == 0
    half, whole = (load_file(tmp_path / name / PARTIAL) for name in ("half", "whole"))
    for name, weight in base_weights(model).items():
        torch.testing.assert_close(half[name], (weight + whole[name]) / 2, rtol=0, atol=1e-6)
    records = [json.loads((tmp_path / name / RECORD).read_text()) for name in ("half", "whole")]
    part, all_of_it = (record["streams"]["text"] for record in records)
    assert part["epochs"] == []
    assert part["kept"] == pytest.approx(all_of_it["kept"] / 2)  # the report is of what was written
    assert part["erased"] > all_of_it["erased"] + 0.1
    near = [{row[0]: float(row[4]) for row in record["neighbours"]} for record in records]
    assert near[0]
    assert all(change == pytest.approx(near[1][word] / 2, abs=2e-4) for word, change in near[0].items())


def test_constants_of_both_edits_and_of_the_derivation(model: Path, tmp_path: Path) -> None:
    told = ("--lamb", "0.3", "--erase-scale", "2", "--preserve-scale", "0.7", "--regulariser", "surrogate_both")
    told += ("--distinct-rows",)
    assert run(model, tmp_path / "out", "--concept", "nudity", "--epochs", "1", *told) == 0
    config = json.loads((tmp_path / "out" / RECORD).read_text())["edits"]["edits"][0]["config"]
    for part in ("start", "step"):
        assert [config[part][key] for key in ("lamb", "erase_scale", "preserve_scale")] == [0.3, 2.0, 0.7]
        assert config[part]["distinct_rows"] is True
    assert (config["regulariser"], config["epochs"]) == ("surrogate_both", 1)


def test_what_no_text_keeps_can_be_given_up(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text("a church\n")
    told = ("--concept", "nudity", "--preset", "keep_only")
    assert run(model, tmp_path / "no", *told) == 2
    assert "shrink 0.05 and no texts to keep" in capsys.readouterr().err
    assert run(model, tmp_path / "out", *told, "--preserve", str(keep), "--shrink", "0.2") == 0
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert [record["edits"]["edits"][0]["config"][part]["shrink"] for part in ("start", "step")] == [0.2, 0.2]
    base = base_weights(model)
    for name, weight in load_file(tmp_path / "out" / PARTIAL).items():
        assert weight.norm() < 0.9 * base[name].norm()


def test_a_path_is_found_from_another_working_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert run(Path(model.name), tmp_path / "one", "--concept", "nudity", "--preset", "uce") == 0
    monkeypatch.chdir(tmp_path)
    assert run(Path("one"), Path("back"), "--undo") == 0
    original = base_weights(model)
    assert all(torch.equal(w, original[name]) for name, w in load_file(tmp_path / "back" / PARTIAL).items())


def test_a_model_that_has_moved(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there, one, two = (tmp_path / name for name in ("here", "there", "one", "two"))
    golden_folder(here)
    assert run(here, one, "--concept", "nudity", "--preset", "uce") == 0
    here.rename(there)
    assert run(one, two, "--undo") == 3
    assert "--base MODEL" in capsys.readouterr().err
    assert run(one, two, "--base", str(there)) == 0
    assert read_transform(two / TRANSFORM).base == str(there)
    first, second = (load_file(folder / PARTIAL) for folder in (one, two))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert run(one, tmp_path / "back", "--undo", "--base", str(there)) == 0
    assert run(there, tmp_path / "no", "--base", str(model)) == 2
    assert "which is no erasure" in capsys.readouterr().err


def test_tensor_has_weights_only(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensor = ("--concept", "nudity", "--technique", "tensor", "--preset", "uce")
    assert run(model, tmp_path / "out", *tensor) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {PARTIAL, REPORT, RECORD}
    assert json.loads((tmp_path / "out" / RECORD).read_text())["rounding"] is None
    assert run(model, tmp_path / "lora", *tensor, "--format", "lora") == 2
    assert run(model, tmp_path / "lora", *tensor, "--format", "transform") == 2
    assert "a transform of the technique tensor" in capsys.readouterr().err
    assert run(model, tmp_path / "dial", *tensor, "--strength", "0.5") == 2
    assert not (tmp_path / "lora").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--concept", "nudity", "--guide", "Nudity"], 2, "is the concept itself"),
        (["--concept", " ", "--guide", "art"], 2, "tokenizes to nothing"),
        (["--concept", ""], 2, "tokenizes to nothing"),
        (["--concept", "nudity", "--strength", "nan"], 2, "--strength nan"),
        (["--concept", "nudity", "--lam", "nan"], 2, "lam"),
        (["--concept", "nudity", "--lamb", "inf"], 2, "lamb"),
        (["--concept", "nudity", "--erase-scale", "0"], 2, "erase_scale"),
        (["--concept", "nudity", "--regulariser", "none"], 2, "regulariser"),
        (["--concept", "nudity", "--method", "uce", "--epochs", "2"], 2, "--method uce with --epochs 2"),
        ([], 2, "0 concepts"),
        (["--concept", "nudity", "--preset", "nude"], 2, "unknown preset 'nude'"),
        (["--concept", "nudity", "--preset", "uce", "--method", "rece"], 2, "no epochs"),
        (["--concept", "nudity", "--technique", "other"], 2, "technique"),
        (["--concept", "nudity", "--technique", "tensor", "--distinct-rows"], 2, "takes all rows of a text as one"),
        (["--concept", "nudity", "--preserve", "KEEP"], 2, "to be erased and to stay"),
        (["--concept", "nudity", "--preserve", "none.txt"], 2, "cannot be read as texts"),
    ],
)
def test_what_cannot_be(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    (tmp_path / "keep.txt").write_text("NUDITY\n")
    options = [option.replace("KEEP", str(tmp_path / "keep.txt")) for option in options]
    assert run(model, tmp_path / "out", *options) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_many_texts_to_keep_are_encoded_in_parts(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once their hidden states would be gigabytes; the nearest are found among all parts."""
    counts, whole = [], Encoder.__call__

    def counted(self: Encoder, texts: list[str]) -> object:
        counts.append(len(texts))
        return whole(self, texts)

    monkeypatch.setattr(Encoder, "__call__", counted)
    (tmp_path / "keep.txt").write_text("".join(f"{i} trees\n" for i in range(150)) + "nudity painting\nnudity art\n")
    words = ["--concept", "nudity", "--preset", "uce", "--preserve", str(tmp_path / "keep.txt")]
    assert run(model, tmp_path / "out", *words) == 0
    assert max(counts) <= 64
    kept = [row for row in json.loads((tmp_path / "out" / RECORD).read_text())["neighbours"] if row[1] == "kept"]
    similar = [float(row[3]) for row in kept]
    assert len(kept) == 8
    assert similar == sorted(similar, reverse=True)
    encoders = open_model(str(model)).encoders()
    (concept,) = encoders.encode(["nudity"])["text"]
    wanted = max(
        float(torch.nn.functional.cosine_similarity(p.rows[p.segments[0].last], concept.rows[1], dim=0))
        for p in encoders.encode([f"{i} trees" for i in range(150)] + ["nudity painting", "nudity art"])["text"]
    )
    assert similar[0] == pytest.approx(wanted, abs=1e-3)


def test_texts_to_keep_that_cannot_be(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever their number, and not passed over where there are none."""
    keep, pipe = tmp_path / "keep.txt", tmp_path / "pipe"
    words = ["--concept", "nudity", "--preserve", str(keep)]
    monkeypatch.setattr(erase_asked, "MANY", 1)
    keep.write_text("monet\nNudity\n")
    assert run(model, tmp_path / "out", *words) == 2
    assert "to be erased and to stay" in capsys.readouterr().err
    keep.write_text("# nothing\n\n")
    assert run(model, tmp_path / "out", *words) == 2
    assert "has no texts" in capsys.readouterr().err
    os.mkfifo(pipe)
    assert run(model, tmp_path / "out", *words[:-1], str(pipe)) == 2
    assert "is a pipe" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nothing", tmp_path / "out", "--concept", "dog") == 3
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    assert run(model, tmp_path / "there", "--concept", "dog") == 2
    told = capsys.readouterr().err
    assert "it is there already" in told
    assert "--force" not in told  # which erase does not have


def test_a_model_is_not_copied_into_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = golden_folder(tmp_path / "base")
    before = sorted(base.rglob("*"))
    assert run(base, base / "erased", "--concept", "nudity", "--preset", "uce", "--format", "full") == 2
    assert "within the model's own folder" in capsys.readouterr().err
    assert sorted(base.rglob("*")) == before


def test_a_base_that_has_changed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = golden_folder(tmp_path / "base")
    assert run(base, tmp_path / "one", "--concept", "nudity") == 0
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    other = load_file(weights)
    name = next(n for n in other if n.endswith("attn2.to_v.weight"))
    other[name] += 1
    from safetensors.torch import save_file

    save_file(other, weights)
    assert run(tmp_path / "one", tmp_path / "two", "--concept", "dog") == 3
    assert "is of a model with the hash" in capsys.readouterr().err
    assert run(tmp_path / "one", tmp_path / "two", "--undo") == 3


def test_a_full_disk_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert run(model, tmp_path / "out", "--concept", "nudity", "--format", "lora") == 3
    told = capsys.readouterr()
    assert "No space left" in told.err
    assert "truncation error" in told.out  # a LoRA's rank, size and error come before it is written
    assert not list(tmp_path.glob("out*"))
    monkeypatch.setattr(hub_folder.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert run(model, tmp_path / "out", "--concept", "nudity") == 3
    assert "MB free" in capsys.readouterr().err


def test_images_before_and_after(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from tests.support.pipelines import stable_diffusion

    stable_diffusion().save_pretrained(tmp_path / "pipe")
    assert run(tmp_path / "pipe", tmp_path / "out", "--concept", "church", "--images", "1") == 0
    page = (tmp_path / "out" / REPORT).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert json.loads((tmp_path / "out" / RECORD).read_text())["images"] == "drawn"


def test_a_pipeline_that_cannot_run_is_told(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    assert run(model, tmp_path / "out", "--concept", "church", "--images", "1") == 0
    assert "could not be run" in (tmp_path / "out" / REPORT).read_text()


def test_an_edit_by_another_program_is_converted_and_built_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours, more, base = (tmp_path / name for name in ("theirs", "ours", "more", "base"))
    assert run(model, theirs, "--concept", "nudity", "--preset", "uce") == 0
    file = str(theirs / PARTIAL)
    assert run(model, ours, "--edited", file) == 0
    assert "residual" in capsys.readouterr().out
    wanted, found = load_file(theirs / PARTIAL), load_file(ours / PARTIAL)
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4)
    assert run(model, more, "--edited", file, "--concept", "church", "--preset", "easy_object") == 0
    assert len(read_transform(more / TRANSFORM).erased) == 2
    listed = tmp_path / "listed"  # a preset with concepts of its own is no mere conversion
    assert run(model, listed, "--edited", file, "--preset", "unsafe", "--epochs", "0") == 0
    assert "bodily fluids" in read_transform(listed / TRANSFORM).erased[1].about["concepts"]
    assert run(ours, base, "--undo") == 0
    original = base_weights(model)
    assert all(torch.equal(weight, original[name]) for name, weight in load_file(base / PARTIAL).items())
    assert run(ours, tmp_path / "no", "--edited", file) == 2
    assert "an erasure itself" in capsys.readouterr().err
