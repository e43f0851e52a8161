from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.results import evaluation_line, figures_table, result_lines, sample_line, with_error


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (3.2734, 0.0213, "3.27 ± 0.02"),
        (3.2734, 0.00213, "3.273 ± 0.002"),
        (1127.34, 12.0, "1,127 ± 12"),
        (4.02, None, "4.02 (no error known)"),
        (4.02, 0.0, "4.02 ± 0"),
        (None, None, "not finite"),
    ],
)
def test_a_value_has_the_digits_that_its_error_leaves(value: float | None, stderr: float | None, text: str) -> None:
    assert with_error({"value": value, "stderr": stderr}) == text


def test_lines_of_a_complete_run(tmp_path: Path) -> None:
    figures: dict[str, Any] = {
        "elbo": {"value": 3.27, "stderr": 0.02, "n": 96, "unit": "bits/byte", "bound": "upper"},
        "bigram": {"value": 4.021, "stderr": 0.013, "n": 96, "unit": "bits/byte", "bound": None},
    }
    record = {"data": "held-out part of files books, windows of 128", "windows": 96, "draws": 16, "figures": figures}
    (tmp_path / "evaluation.json").write_text(json.dumps(record))
    (tmp_path / "samples" / "asked").mkdir(parents=True)
    (tmp_path / "samples" / "asked" / "step_000500.json").write_text(json.dumps({"items": [{"text": "asked for"}]}))
    item = {"kind": "infill", "prompt": "return self.▁▁▁", "text": "return self.abc"}
    for step, items in ((100, []), (400, [{"kind": "sample", "prompt": "", "text": "x"}, item])):
        (tmp_path / "samples" / f"step_{step:06d}.json").write_text(json.dumps({"items": items}))
    (tmp_path / "report.html").touch()
    assert dict(result_lines(tmp_path, "runs/a")) == {
        "evaluate": (
            "ELBO 3.27 ± 0.02 bits/byte (held-out part of files books, windows of 128, 96 windows x 16 strata)"
            " · bigram baseline 4.021 ± 0.013"
        ),
        "sample": '"return self.▁▁▁" -> "return self.abc"',
        "report": "runs/a/report.html",
    }


def test_an_exact_likelihood_has_no_strata() -> None:
    nll = {"value": 2.0, "stderr": 0.1, "n": 8, "unit": "bits/byte", "bound": None}
    line = evaluation_line({"data": "held-out part of X", "draws": 16, "figures": {"nll": nll}})
    assert line == "NLL 2.00 ± 0.10 bits/byte (held-out part of X, 8 windows)"


def test_what_all_figures_share_is_said_once() -> None:
    def figure(value: float, protocol: str, n: int = 1200) -> dict[str, Any]:
        return {"value": value, "stderr": 0.1, "n": n, "unit": "bits/byte", "protocol": protocol}

    windows = "1,200 held-out windows of 32 tokens"
    figures = {"elbo": figure(3.0, f"4 strata, {windows}"), "elbo_of_words": figure(10.0, f"counts, {windows}")}
    assert figures_table({"step": 7, "model": "ema 0.9", "data": "held-out X", "figures": figures}).splitlines() == [
        "step 7, ema 0.9 weights, held-out X, 1,200 held-out windows of 32 tokens",
        "  ELBO           3.00 ± 0.10 bits/byte   4 strata",
        "  ELBO of words  10.00 ± 0.10 bits/byte  counts",
    ]
    unsaid = figures_table({"step": 7, "figures": {"nll": figure(3.0, "exact", 8), "bigram": figure(4.0, "", 9)}})
    assert [line.split("bits/byte")[1].strip() for line in unsaid.splitlines()[1:]] == ["exact, n=8", "n=9"]


def test_a_folder_without_results_has_no_lines(tmp_path: Path) -> None:
    assert list(result_lines(tmp_path, "runs/a")) == []


def image_record() -> dict[str, Any]:
    def figure(value: float, error: float, protocol: str) -> dict[str, Any]:
        return {"value": value, "stderr": error, "n": 5000, "unit": "", "protocol": protocol, "bound": None}

    against = "5,000 generated against 5,000 reference images, small network trained on single digits"
    figures = {
        "modes": figure(985, 2.9, "5,000 samples, 1,000 modes"),
        "fid": figure(12.31, 0.42, f"{against}; error by the delta method on 5,000 and 5,000 samples"),
        "coverage": figure(0.91, 0.01, f"{against}; k=5, <; all features"),
        "recall": figure(0.71, 0.01, f"{against}; k=5, <; all features"),
    }
    data = "5,000 samples against training samples of digits"
    return {"step": 100, "model": "ema 0.998", "data": data, "figures": figures}


def write_grid(folder: Path, step: int, picture: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    items = [{"kind": "neighbours", "file": "n.png"}, {"kind": "grid", "file": f"step_{step:06d}.png"}]
    (folder / f"step_{step:06d}.json").write_text(json.dumps({"items": items}))
    if picture:
        (folder / f"step_{step:06d}.png").touch()


def test_lines_of_an_image_run(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(image_record()))
    write_grid(tmp_path / "samples", 500)
    write_grid(tmp_path / "samples", 1000, picture=False)
    assert dict(result_lines(tmp_path, "runs/a")) == {
        "evaluate": (
            "FID 12.3 ± 0.4 · coverage 0.910 ± 0.010 · modes 985 ± 3 of 1,000 "
            "(5,000 samples against training samples of digits)"
        ),
        "sample": "runs/a/samples/step_000500.png",
    }


def test_of_a_speech_run_the_newest_enhanced_sound_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    item = {
        "kind": "speech",
        "title": "one",
        "file": "step_000123_0.png",
        "sounds": {"noisy": "n.wav", "enhanced": "e.wav"},
    }
    (tmp_path / "samples" / "step_000123.json").write_text(json.dumps({"items": [item]}))
    assert list(result_lines(tmp_path, "runs/a")) == []
    (tmp_path / "samples" / "e.wav").touch()
    assert dict(result_lines(tmp_path, "runs/a")) == {"sample": "runs/a/samples/e.wav"}


def test_pictures_that_are_not_there_give_no_line(tmp_path: Path) -> None:
    write_grid(tmp_path / "samples", 500, picture=False)
    (tmp_path / "samples" / "step_000900.json").write_text(
        json.dumps({"items": [{"kind": "grid", "file": "../config.yaml"}]})
    )
    (tmp_path / "config.yaml").touch()
    assert list(result_lines(tmp_path, "runs/a")) == []


def test_long_protocols_are_notes_below_the_figures_each_said_once() -> None:
    lines = figures_table(image_record()).splitlines()
    assert lines[:5] == [
        "step 100, ema 0.998 weights, 5,000 samples against training samples of digits",
        "  modes     985 ± 3 of 1,000  [1]",
        "  FID       12.3 ± 0.4        [2]",
        "  coverage  0.910 ± 0.010     [3]",
        "  recall    0.710 ± 0.010     [3]",
    ]
    assert lines[5] == "  [1] 5,000 samples, 1,000 modes"
    assert sum("k=5" in line for line in lines) == 1
    assert max(map(len, lines)) <= 120
    assert [line[:6] for line in lines[6:8]] == ["  [2] ", "      "]


def test_a_long_infilling_is_cut_around_its_first_mask() -> None:
    prompt, text = "a" * 200 + "▁" * 5 + "b" * 200, "a" * 200 + "12345" + "b" * 200
    line = sample_line({"items": [{"kind": "infill", "prompt": prompt, "text": text}]})
    assert "a▁▁▁▁▁b" in line
    assert "a12345b" in line
    assert len(line) < 150
