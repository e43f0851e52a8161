"""`generative enhance`: files and folders, what is wrong with some, going on, and where models come from."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.data.speech_wave import read_wave, wave_bytes, wave_header
from generative.errors import ConfigError, ResourceError, RunFolderError
from generative.hub.legacy import read_checkpoint
from generative.training.runfolder import replace_file
from launch import enhance_report, enhancing
from launch.cli import main
from launch.enhance_files import list_files
from launch.enhance_model import open_model
from launch.enhance_report import REPORT
from launch.enhancing import RECORD
from launch.run import train
from tests.launch.test_speech_task import TINY

GOLDEN = Path(__file__).parents[1] / "golden" / "sgmse"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "run"
    quiet = ("evaluate.at_end=false", "sample.at_end=false", "train.sample_every=null", "method.sampling.window=64")
    assert train("sgmse/quickstart", [*TINY, *quiet, f"run.dir={folder}"]) == 0
    return folder


def noise(samples: int, seed: int = 0, loud: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * loud).astype(np.float32)


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Three good files (one longer than a window, one shorter than a frame), in folders."""
    folder = tmp_path / "noisy"
    (folder / "a" / "b").mkdir(parents=True)
    for name, samples in (("a/one.wav", 5000), ("a/b/two.wav", 9000), ("tiny.wav", 20)):
        (folder / name).write_bytes(wave_bytes(noise(samples), 8000))
    return folder


def records(folder: Path) -> dict[str, dict]:
    return {line["file"]: line for line in map(json.loads, (folder / RECORD).read_text().splitlines())}


def test_a_folder_keeps_paths_rates_and_lengths(run: Path, noisy: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["enhance", str(run), str(noisy), str(out)]) == 0
    shown = capsys.readouterr().out
    assert "3 enhanced" in shown
    assert "real time factor" in shown
    assert "2 network calls a file" in shown
    for path in noisy.rglob("*.wav"):
        found = out / path.relative_to(noisy)
        assert (wave_header(found).rate, wave_header(found).frames) == (8000, wave_header(path).frames)
        assert not np.array_equal(read_wave(found), read_wave(path))


def test_batches_and_company_change_nothing(run: Path, noisy: Path, tmp_path: Path) -> None:
    (noisy / "a" / "c.wav").write_bytes(wave_bytes(noise(4990, 1), 8000))
    (noisy / "a" / "d.wav").write_bytes(wave_bytes(noise(5010, 2), 8000))
    for name, size in (("eight", "8"), ("one", "1")):
        assert main(["enhance", str(run), str(noisy), str(tmp_path / name), "--batch-size", size]) == 0
    single = tmp_path / "single.wav"
    assert main(["enhance", str(run), str(noisy / "a" / "c.wav"), str(single)]) == 0
    for path in noisy.rglob("*.wav"):
        name = path.relative_to(noisy)
        eight, one = (read_wave(tmp_path / folder / name) for folder in ("eight", "one"))
        assert np.abs(eight - one).max() <= 1 / 2**15  # a step of 16 bits
    assert not list(tmp_path.glob("**/.*.part"))


def test_given_again_it_goes_on(run: Path, noisy: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["enhance", str(run), str(noisy), str(out)]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    (out / "tiny.wav").unlink()
    (noisy / "a" / "one.wav").write_bytes(wave_bytes(noise(6000, 5), 8000))
    capsys.readouterr()
    assert main(["enhance", str(run), str(noisy), str(out)]) == 0
    assert "2 enhanced · 1 there already" in capsys.readouterr().out
    assert (out / "a" / "b" / "two.wav").stat().st_mtime_ns == before[out / "a" / "b" / "two.wav"]
    assert wave_header(out / "a" / "one.wav").frames == 6000
    # Other settings make other results, so nothing is kept.
    assert main(["enhance", str(run), str(noisy), str(out), "--steps", "3"]) == 0
    assert "3 enhanced" in capsys.readouterr().out
    assert {line["calls"] for line in records(out).values()} == {3}


def test_what_is_wrong_with_a_file_is_told_and_the_rest_goes_on(run: Path, noisy: Path, tmp_path: Path, capsys) -> None:
    good = (noisy / "a" / "one.wav").read_bytes()
    stereo = bytearray(good)
    stereo[22:24], stereo[32:34] = struct.pack("<H", 2), struct.pack("<H", 4)
    bad = {
        "rate.wav": wave_bytes(noise(9000), 16000),
        "stereo.wav": bytes(stereo),
        "empty.wav": b"",
        "junk.wav": b"no header here",
        "cut.wav": good[:3000],
        "silent.wav": wave_bytes(np.zeros(4000, np.float32), 8000),
    }
    for name, content in bad.items():
        (noisy / name).write_bytes(content)
    (noisy / "clipped.wav").write_bytes(wave_bytes(np.clip(noise(4000, loud=2.0), -1, 1), 8000))
    out = tmp_path / "out"
    assert main(["enhance", str(run), str(noisy), str(out)]) == 1
    shown = capsys.readouterr().out
    assert "4 enhanced · 6 failed" in shown
    for text in (
        "rate.wav: 16000 Hz, not 8000 (give --resample)",
        "stereo.wav: 2 channels (give --channel first, or mean)",
        "empty.wav: empty",
        "junk.wav: not a wav file",
        "cut.wav: cut off",
        "silent.wav: silent",
        "clipped.wav: the noisy file is clipped",
    ):
        assert text in shown
    assert not any((out / name).exists() for name in bad)
    assert main(["enhance", str(run), str(noisy), str(out), "--resample", "--channel", "first"]) == 1
    assert "2 enhanced · 4 there already · 4 failed" in capsys.readouterr().out
    assert (wave_header(out / "rate.wav").rate, wave_header(out / "rate.wav").frames) == (16000, 9000)


def test_the_report_plays_what_came_in_and_what_went_out(run: Path, noisy: Path, tmp_path: Path, capsys) -> None:
    (noisy / "<b>long.wav").write_bytes(wave_bytes(noise(8000 * 9, loud=2.0), 8000))
    (noisy / "rate.wav").write_bytes(wave_bytes(noise(9000), 16000))
    out = tmp_path / "out"
    assert main(["enhance", str(run), str(noisy), str(out)]) == 1
    assert str(out / REPORT) in capsys.readouterr().out
    page = (out / REPORT).read_text()
    sounds = [base64.b64decode(text) for text in re.findall(r"data:audio/wav;base64,([^\"]*)", page)]
    assert len(sounds) == 8  # noisy and enhanced of four files
    assert {wave_header(sound).frames for sound in sounds} == {5000, 9000, 20, 8 * 8000}
    pairs = list(zip(sounds[::2], sounds[1::2], strict=True))
    assert all(wave_header(one) == wave_header(other) and one != other for one, other in pairs)
    assert page.count("data:image/png") == 4
    assert "<b>long" not in page
    assert "&lt;b&gt;long.wav, seconds 0.5 to 8.5" in page  # of nine
    assert "16000 Hz, not 8000" in page
    # What is there already stands in the page of the next command, too, and the failure until it is mended.
    (noisy / "rate.wav").unlink()
    assert main(["enhance", str(run), str(noisy), str(out)]) == 0
    again = (out / REPORT).read_text()
    assert again.count("data:audio/wav") == 8
    assert "16000 Hz, not 8000" not in again


def no_room(*words: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_has_no_room_is_told_and_the_rest_goes_on(run: Path, noisy: Path, tmp_path: Path, monkeypatch) -> None:
    def room_for_small(path: Path, data: bytes, durable: bool = True) -> None:
        (no_room if len(data) > 15_000 else replace_file)(path, data, durable)

    out = tmp_path / "out"
    monkeypatch.setattr(enhancing, "replace_file", room_for_small)
    asked = enhancing.Asked(str(run), noisy, out, {}, batch_size=2)
    found = enhancing.enhance_files(asked, None, lambda *words: None, lambda *counts: None)
    (full,) = found.failed
    assert re.search(r"^a/b/two.wav: .*No space left on device.*free space there.*choose another OUT", full)
    assert len(found.done) == len(list(out.rglob("*.wav"))) == 2
    assert not list(out.rglob("*.part"))
    monkeypatch.undo()
    again = enhancing.enhance_files(asked, None, lambda *words: None, lambda *counts: None)
    assert [line["file"] for line in again.done] == ["a/b/two.wav"]


def test_where_the_record_has_no_room_nothing_counts_as_done(
    run: Path, noisy: Path, tmp_path: Path, monkeypatch
) -> None:
    def full(path: Path, record: object) -> None:
        raise RunFolderError("no", "room", "free") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(enhancing, "append_line", full)
    monkeypatch.setattr(enhance_report, "replace_file", no_room)
    asked = enhancing.Asked(str(run), noisy, tmp_path / "out", {})
    found = enhancing.enhance_files(asked, None, lambda *words: None, lambda *counts: None)
    assert (found.done, found.report) == ([], None)
    assert len(found.failed) == 4  # the sounds and the report
    assert all("No space left" in line or "no (free)" in line for line in found.failed)
    monkeypatch.undo()
    again = enhancing.enhance_files(asked, None, lambda *words: None, lambda *counts: None)
    assert (len(again.done), again.kept) == (3, 0)


def test_a_folder_that_cannot_be_written_is_told_before_work(run: Path, noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    asked = enhancing.Asked(str(run), noisy, tmp_path / "file" / "out", {})
    with pytest.raises(ResourceError, match=r"(?s)a folder, not a file.*choose another OUT"):
        enhancing.enhance_files(asked, None, lambda *words: None, lambda *counts: pytest.fail("work has begun"))


def test_places_that_cannot_be(run: Path, noisy: Path, tmp_path: Path) -> None:
    one = noisy / "a" / "one.wav"
    for source, target in ((noisy, noisy), (one, one), (noisy, one), (one, tmp_path / "x.mp3")):
        with pytest.raises(ConfigError):
            list_files(source, target)
    assert main(["enhance", str(run), str(tmp_path / "none"), str(tmp_path / "out")]) != 0
    assert main(["enhance", str(run), str(one), str(tmp_path / "o.wav"), "--sampler", "heunn"]) != 0


def test_a_model_may_lie_in_a_run_an_export_or_a_published_file(run: Path, noisy: Path, tmp_path: Path) -> None:
    one = noisy / "a" / "one.wav"
    assert main(["export", str(run), "--out", str(tmp_path / "model")]) == 0  # as `enhance`: averaged
    words = ["--out", str(tmp_path / "released"), "--layout", "released", "--weights", "trained"]
    assert main(["export", str(run), *words]) == 0
    released = next((tmp_path / "released").glob("*.ckpt"))
    assert main(["import", str(released), "--out", str(tmp_path / "imported")]) == 0
    states = [open_model(place, {}).net.state_dict() for place in (run, tmp_path / "model")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    results = []
    for place in (run, tmp_path / "model"):
        out = tmp_path / f"{place.name}.wav"
        assert main(["enhance", str(place), str(one), str(out)]) == 0
        results.append(out.read_bytes())
    assert results[0] == results[1]
    trained = open_model(run, {}, "trained").net.state_dict()
    for place in (released, tmp_path / "imported"):
        found = open_model(place, {}, "trained").net.state_dict()
        assert all(torch.equal(found[name], trained[name]) for name in trained)


def test_the_released_code_s_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    found = open_model(GOLDEN / "tiny_lightning.ckpt", {"method.sampling.steps": 2})
    assert found.config.sampling.steps == 2
    shadow = read_checkpoint(GOLDEN / "tiny_lightning.ckpt")["ema"]["shadow_params"]
    assert torch.equal(found.net.state_dict()["output.weight"], shadow[0])
