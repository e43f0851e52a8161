"""Files to enhance: names, places, and what goes wrong with one of them; with a stand-in for the network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from generative.data.speech_wave import read_wave, wave_bytes
from generative.errors import ConfigError, DataError, ResourceError
from generative.methods.sgmse.enhancer import EnhancedWave
from generative.randomness import Streams
from launch import enhancing
from launch.enhance_files import File, check_folder, list_files
from launch.enhancing import Asked
from tests.support.voices import wav_bytes


def sound(path: Path, samples: int = 100, loud: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wave_bytes(np.full(samples, loud, np.float32), 8000))
    return path


class Halving:
    """Makes waves half as loud: quiet ones overflow, and more than so many samples at once do not fit."""

    def __init__(self, most: int = 10**9) -> None:
        self.most = most

    def enhance(self, waves: Sequence[Tensor], ids: Sequence[int], streams: Streams) -> list[EnhancedWave]:
        if sum(map(len, waves)) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return [EnhancedWave(w / 2 if w.max() > 0.05 else w * torch.inf, 3) for w in waves]


def work(source: Path, target: Path, most: int = 10**9) -> dict[str, dict[str, Any]]:
    """Lines by file of a worker with that network."""
    model = SimpleNamespace(config=SimpleNamespace(sample_rate=8000), enhancer=lambda size: Halving(most))
    worker = enhancing._Worker(Asked("", source, target, {}), model, "s")  # type: ignore[arg-type]
    return {line["file"]: line for line in worker(list_files(source, target))}


def test_results_below_the_noisy_files_are_not_enhanced_again(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    out = tmp_path / "out"
    for _ in range(2):
        assert list(work(tmp_path, out)) == ["a.wav"]
    assert not (out / "out").exists()
    (tmp_path / "a.wav").unlink()
    with pytest.raises(DataError, match="but in"):
        list_files(tmp_path, out)


def test_no_result_replaces_another_noisy_file(tmp_path: Path) -> None:
    # x/a.wav of the folder out/x would become out/x/a.wav, which is a noisy file, too.
    sound(tmp_path / "out/x/a.wav")
    sound(tmp_path / "out/x/x/a.wav")
    with pytest.raises(ConfigError, match="replace the noisy files"):
        list_files(tmp_path / "out/x", tmp_path / "out")


def test_a_place_that_is_no_file_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="to fix: name a file as OUT"):
        list_files(sound(tmp_path / "a.wav"), tmp_path / "out")


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xff.wav")
    sound(tmp_path / "in" / name)
    assert "failed" not in work(tmp_path / "in", tmp_path / "out")[name]
    assert (tmp_path / "out" / name).is_file()
    other = os.fsdecode(b"b\xfe.wav")
    assert len({File(n, Path(n), Path(n)).number for n in (name, other)}) == 2


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    name = "n" * 251 + ".wav"
    sound(tmp_path / "in" / name)
    assert "failed" not in work(tmp_path / "in", tmp_path / "out")[name]
    assert sorted(os.listdir(tmp_path / "out")) == ["enhance.jsonl", name]


def test_a_result_that_is_no_number_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    sound(tmp_path / "in/good.wav")
    sound(tmp_path / "in/quiet.wav", loud=0.01)
    lines = work(tmp_path / "in", tmp_path / "out")
    assert "--sampler" in lines["quiet.wav"]["failed"]
    assert not (tmp_path / "out/quiet.wav").exists()
    assert np.abs(read_wave(tmp_path / "out/good.wav") - 0.05).max() < 1e-4


def test_floats_beyond_full_scale_are_not_clipped(tmp_path: Path) -> None:
    clipped, beyond = (np.array([level] * 20, np.float32) for level in (1.0, 3.0))
    (tmp_path / "in").mkdir()
    for name, numbers in (("clipped", clipped), ("beyond", beyond)):
        (tmp_path / f"in/{name}.wav").write_bytes(wav_bytes(numbers.tobytes(), 3, 32, rate=8000))
    lines = work(tmp_path / "in", tmp_path / "out")
    assert lines["clipped.wav"]["note"] == "the noisy file is clipped"
    assert lines["beyond.wav"]["note"].startswith("made quieter by 3.5 dB")


def test_what_does_not_fit_the_memory_is_done_alone_or_told(tmp_path: Path) -> None:
    for name, samples in (("a", 100), ("b", 100), ("long", 1000)):
        sound(tmp_path / f"in/{name}.wav", samples)
    lines = work(tmp_path / "in", tmp_path / "out", most=150)
    assert {name for name, line in lines.items() if "failed" not in line} == {"a.wav", "b.wav"}
    assert "memory" in lines["long.wav"]["failed"]


def test_other_errors_of_the_network_are_not_taken_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("shapes differ")

    sound(tmp_path / "in/a.wav")
    monkeypatch.setattr(Halving, "enhance", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        work(tmp_path / "in", tmp_path / "out")


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = File("gone.wav", tmp_path / "gone.wav", tmp_path / "out/gone.wav")
    assert gone.stamp == []
    sound(tmp_path / "in/a.wav")
    model = SimpleNamespace(config=SimpleNamespace(sample_rate=8000), enhancer=lambda size: Halving())
    worker = enhancing._Worker(Asked("", tmp_path / "in", tmp_path / "out", {}), model, "s")  # type: ignore[arg-type]
    lines = worker([gone, *list_files(tmp_path / "in", tmp_path / "out")])
    assert [line.get("failed") for line in lines] == ["No such file or directory", None]


def test_a_place_that_cannot_be_written_names_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"(?s)a folder, not a file.*choose another OUT"):
        check_folder(tmp_path / "file/out")
