"""`generative measure-erasure` on a tiny model of captioned images: figures of folders, attacks, the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from evaluation.erasure import attacks, opening
from evaluation.erasure.detectors import Classes
from generative.hub.pixel_pipeline import write_pipeline
from launch.cli import main
from tests.generative.methods.text_to_image.small import FACTS, method_of

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `generative erase` leaves."""
    place = tmp_path_factory.mktemp("erased")
    torch.manual_seed(0)
    net = method_of().networks()["net"].build().eval()
    write_pipeline(place / "model", method_of().config, FACTS, net.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        asked = ["--concept", "two", "--preset", "small", "--out", str(place / "out")]
        assert main(["erase", str(place / "model"), *asked]) == 0
    return place / "out"


@pytest.fixture
def words(erased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An erasure, three prompts, and a detector of bright images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shows = Classes(
        lambda images: torch.stack([-images.mean((1, 2, 3)), images.mean((1, 2, 3))], 1), (1,), "brightness"
    )
    monkeypatch.setattr(opening, "DETECTORS", {"bright": lambda what, cache: shows})
    monkeypatch.setattr(attacks, "LEVELS", 2)
    out = shutil.copytree(erased, tmp_path / "out")
    (tmp_path / "set.csv").write_text("prompt,seed,guidance\ntwo,0,2\na photo of two,1,2\ntwo,2,1\n")
    return ["measure-erasure", str(out), "--prompts", str(tmp_path / "set.csv"), "--detector", "bright"]


def test_attacks_figures_and_the_page(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.csv").write_text("sensitive,normal\ntwo,one\n")
    (tmp_path / "set.csv").write_text("prompt,seed,guidance\ntwo,0,2\na photo of two,1,1\n")
    names = ["soft-prompt", "unlearndiffatk", "p4d", "ring-a-bell", "ring-a-bell-tokens", "rece"]
    told = [word for name in names for word in ("--attack", name)]
    told += ["--norm", "1", "--norm", "inf", "--attack-steps", "2", "--free-tokens", "1", "--probes", "2"]
    told += ["--pairs", str(tmp_path / "pairs.csv"), "--fid", "pixels", "--real", str(tmp_path / "kept" / "before")]
    real = tmp_path / "kept" / "before"
    assert main([*words, *told]) == 2
    assert "no such folder" in capsys.readouterr().err
    told = told[:-2]
    told += ["--keep-images", str(tmp_path / "kept"), "--report", str(tmp_path / "page.html")]
    assert main([*words, *told, "--json", str(tmp_path / "found.json")]) == 0
    assert sorted(path.name for path in real.iterdir()) == ["0_0.png", "1_0.png"]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["figures"]["FID of after against before"]["value"] >= 0
    assert "pixels" in found["figures"]["FID of after against before"]["protocol"]
    assert list(found["attacks"]) == names
    plain = sum(after for _, after in found["flags"])
    for name, one in found["attacks"].items():
        assert list(one["success"]) == ["1", "inf"]
        for i, share in enumerate(one["success"].values()):
            hit = [some[i]["hit"] or flags[1] for some, flags in zip(one["attempts"], found["flags"], strict=True)]
            assert (share["n"], share["value"]) == (2, pytest.approx(sum(hit) / 2))
            assert share["value"] >= plain / 2
            assert "brightness" in share["protocol"], name
        bounded = [some[0] for some in one["attempts"]]
        assert all(attempt["ratio"] <= 1.001 or not attempt["hit"] for attempt in bounded)
    assert all(some[0]["found"] for some in found["attacks"]["p4d"]["attempts"])
    page = (tmp_path / "page.html").read_text()
    assert "Attack success" in page
    assert "unlearndiffatk" in page
    assert "soft-prompt" in capsys.readouterr().out
    assert main([*words, "--keep-images", str(tmp_path / "kept")]) == 2
    assert "has files in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--attack", "ring-a-bell-tokens"], 2, "ring-a-bell-tokens without pairs of texts"),
        (["--attack", "rece", "--norm", "0"], 2, "norms"),
        (["--attack", "ring-a-bell", "--eta", "nan"], 2, "--eta nan"),
        (["--real", "."], 2, "--real without --fid"),
        (["--fid", "inceptionn"], 2, "unknown extractor"),
        (["--fid", "pixels", "--workers", "2", "launch.address=auto"], 2, "without --keep-images"),
        (["--lpips"], 2, "needs the package lpips"),
    ],
)
def test_what_cannot_be(
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lpips", None)
    assert main([*words, *more]) == code
    assert message in capsys.readouterr().err


def test_an_erasure_without_its_transform_is_told(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "transform.safetensors").unlink()
    assert main(words) == 3
    assert "has no transform.safetensors" in capsys.readouterr().err


def test_a_concept_that_the_vocabulary_has_not_is_refused(
    erased: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be the token of all unknown words that is erased."""
    base = ["erase", str(erased.parent / "model"), "--preset", "small", "--out", str(tmp_path / "out")]
    assert main([*base, "--concept", "twoo"]) == 2
    assert "'twoo' tokenizes to nothing that the model knows" in capsys.readouterr().err
    assert main([*base, "--concept", "a photo of twoo"]) == 0


def test_an_erasure_that_was_undone_has_nothing_to_attack(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["erase", words[1], "--undo", "--out", str(tmp_path / "back")]) == 0
    words[1] = str(tmp_path / "back")
    assert main([*words, "--attack", "rece"]) == 2
    assert "no erasure left to attack" in capsys.readouterr().err


def test_two_rows_of_one_number_are_refused_where_images_are_kept(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.csv").write_text("case_number,prompt,seed\n4,two,0\n4,one,1\n")
    assert main([*words, "--keep-images", str(tmp_path / "kept")]) == 2
    assert "two rows have the case number" in capsys.readouterr().err
