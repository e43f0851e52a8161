from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch import cli
from launch.gallery import about, make_gallery


def run(folder: Path, config: str, state: str = "complete") -> Path:
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "config": config, "step": 3, "steps": 9}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    run(root / "edm" / "quickstart", "edm/quickstart")
    run(root / "mine", "edm/digits+my_layer", "interrupted")
    (root / "mine" / "report.html").write_text("")
    inner = root / "mine" / "logs"
    inner.mkdir()
    (inner / "status.json").write_text("{}")  # inside a run: no run
    (root / "restored").mkdir()
    (root / "restored" / "report.html").write_text("<header><p class=eyebrow>Kind</p><h1>Twelve images</h1></header>")
    (root / "foreign").mkdir()
    (root / "foreign" / "report.html").write_text("<h1>something else</h1>")
    return root


def test_all_runs_and_other_reports_below_a_folder_are_there(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gallery", str(runs)]) == 0
    assert capsys.readouterr().out == f"written to {runs}/gallery.html: 2 runs and 1 other report\n"
    page = (runs / "gallery.html").read_text()
    for text in ("Twelve images", "A class-conditional diffusion model of handwritten digits", "Interrupted", "3 of 9"):
        assert text in page
    assert 'href="mine/report.html"' in page
    assert "something else" not in page
    assert make_gallery(runs)[1:] == (2, 1)  # the page itself is no report


def test_a_run_whose_name_does_not_say_where_it_lies_tells_it(runs: Path) -> None:
    page = make_gallery(runs, runs / "page.html")[0].read_text()
    assert "<dt>Folder</dt><dd>mine</dd>" in page
    assert "<dd>edm/quickstart</dd>" not in page


def test_a_single_run_has_a_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "one", "mine.yaml")
    assert cli.main(["gallery", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert "1 run\n" in capsys.readouterr().out
    assert not (folder / "gallery.html").exists()


def test_an_empty_folder_and_a_wrong_place_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gallery", str(tmp_path)]) == 3
    assert "there are no runs in it" in capsys.readouterr().err
    assert cli.main(["gallery", str(tmp_path / "nope")]) == 3
    assert "there is no such folder" in capsys.readouterr().err
    run(tmp_path / "one", "x")
    assert cli.main(["gallery", str(tmp_path), "--out", str(tmp_path / "nope" / "page.html")]) == 2
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("edm/quickstart", "A class-conditional diffusion model"),
        ("masked_diffusion/paper+sizes/170m", "The pre-training recipe"),
        ("mine.yaml", ""),
        ("../configs/edm/quickstart", ""),
    ],
)
def test_what_a_configuration_is_for(name: str, beginning: str) -> None:
    said = about(name)
    assert bool(said) == bool(beginning)
    assert said.startswith(beginning)
    assert not said or said.endswith(".")
