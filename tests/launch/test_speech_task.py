"""Speech runs through the launcher: training, sounds, evaluation by ranks and by workers, and mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from generative.data.speech_wave import read_wave, wave_header
from generative.errors import ConfigError, DataError
from generative.methods.sgmse.sampling import sampler_name
from launch import runs, speech_actors
from launch.results import evaluation_line, result_lines
from launch.run import train
from launch.schema import load_run_config
from launch.speech_task import check, open_data
from tests.support.actors import actors_here
from tests.support.schema import check_lines

TINY = (
    "method.spectrogram.n_fft=126",
    "method.spectrogram.hop=63",
    "data.length=3969",
    "method.network.width=4",
    "method.network.multipliers=[1,2]",
    "method.sampling.steps=2",
    "data.size=40",
    "data.seconds=0.6",
    "data.validation_size=5",
    "data.test_size=5",
    "train.steps=4",
    "train.batch_size=4",
    "train.sample_every=2",
    "train.validation.every_steps=2",
    "train.validation.samples=4",
    "train.log_every=1",
    "train.checkpoint.every_steps=2",
    "evaluate.metrics=[si_sdr,si_sar]",
    "evaluate.files=null",
    "sample.count=2",
    "launch.backend=local",
    "launch.workers=1",
)
SETTLED = ("kind", "step", "loss", "grad_norm", "metrics")


def lines(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row.get(key) for key in SETTLED} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert train("sgmse/quickstart", [*TINY, f"run.dir={folder}"]) == 0
    return folder


def test_a_run_leaves_sounds_figures_and_a_report(finished: Path) -> None:
    for step in ("000002", "000004"):
        record = json.loads((finished / "samples" / f"step_{step}.json").read_text())
        assert [item["kind"] for item in record["items"]] == ["speech", "speech"]
        for item in record["items"]:
            sounds = [finished / "samples" / file for file in item["sounds"].values()]
            assert {(wave_header(path).rate, wave_header(path).frames) for path in sounds} == {(8000, 4800)}
            assert (finished / "samples" / item["file"]).read_bytes().startswith(b"\x89PNG")
            assert set(item["figures"]["si_sdr"]) == {"noisy", "enhanced"}
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert list(evaluation["figures"]) == ["si_sdr", "si_sar", "noisy_si_sdr"]
    assert all(figure["n"] == 5 for figure in evaluation["figures"].values())
    # Mixtures at 0, 5, 10, 15 and 0 dB: the noisy figure is known without a measurement.
    assert evaluation["figures"]["noisy_si_sdr"]["value"] == pytest.approx(6.0, abs=0.3)
    assert evaluation["network_calls"] == 2
    assert evaluation["sampler"] == "bridge_ode, N=2, told the time of its state"
    assert evaluation_line(evaluation).startswith("SI-SDR ")
    monitor = [line for line in lines(finished) if line["kind"] == "monitor"]
    assert [line["step"] for line in monitor] == [2, 4]
    assert {"si_sdr", "si_sdr_gain"} <= monitor[0]["metrics"].keys()  # type: ignore[attr-defined]
    check_lines(finished)
    shown = dict(result_lines(finished, "RUN"))
    assert shown["sample"] == "RUN/samples/step_000004_0_enhanced.wav"
    assert "data:audio/wav;base64," in (finished / "report.html").read_text()


def test_workers_measure_what_one_process_does(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = actors_here(monkeypatch, speech_actors)
    told: list[tuple[int, int]] = []
    alone = runs.evaluate_run(finished)
    spread = runs.evaluate_run(finished, workers=2, progress=lambda *counts: told.append(counts))
    assert actors.items == [[0, 1, 2], [3, 4]]
    assert told[-1] == (5, 5)
    for name, figure in alone["figures"].items():
        assert spread["figures"][name]["value"] == pytest.approx(figure["value"], rel=1e-5)


def test_sounds_that_are_asked_for(finished: Path) -> None:
    drawn = runs.sample_run(finished, count=3)
    assert len(drawn["items"]) == 3
    path = finished / "samples" / "asked" / drawn["items"][0]["sounds"]["enhanced"]
    first = path.read_bytes()
    assert str(path) in runs.samples_shown(finished, drawn)[0]
    with pytest.raises(ConfigError, match="--prompt"):
        runs.sample_run(finished, prompt="hello")
    # More steps of another sampler: another sound.
    runs.sample_run(finished, count=3, overrides=["method.sampling.sampler=exponential", "method.sampling.steps=3"])
    assert path.read_bytes() != first
    assert read_wave(path).shape == (4800, 1)


def test_an_interrupted_run_goes_on_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "run"
    shutil.copytree(finished, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step_000004")
    for name in ("outcome.json", "status.json"):
        (stopped / name).unlink(missing_ok=True)
    assert train("sgmse/quickstart", [*TINY, f"run.dir={stopped}"]) == 0
    # Figures of sounds may differ in the last bits: how numpy adds depends on where arrays lie in memory.
    trained = [[line for line in lines(folder) if line["kind"] != "monitor"] for folder in (stopped, finished)]
    assert trained[0] == trained[1]
    assert len(trained[0]) == 6


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (["data.sample_rate=16000"], ConfigError, "method.sample_rate=8000"),
        (["data.length=4000"], ConfigError, "set data.length=3969"),
        (["train.batch_size=64"], DataError, "fewer than train.batch_size=64"),
        (["evaluate.metrics=[pesq_wb]"], ConfigError, "pesq_wb of audio at 8000 Hz"),
        (["method.frames=63", "data.length=3906"], ConfigError, "which the network cannot halve"),
        (["method.sampling.sampler=exponential", "method.sampling.start=5e-5"], ConfigError, "sampling from t=5e-05"),
        (["method.process={name: bbed}", "method.sampling.start=1"], ConfigError, "end of time of BBED"),
    ],
)
def test_mistakes_are_told_before_anything_starts(words: list[str], kind: type[Exception], told: str) -> None:
    config = load_run_config("sgmse/quickstart", [*TINY, *words])
    with pytest.raises(kind) as error:
        check(config, open_data(config))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method.sampling.sampler=bridge_sde", "method.process={name: ouve}"], "process.name=sbve"),
        (["method.fine_tuning={steps: 1}"], "set method.init_from"),
        (["method.sampling.window=65"], "set method.sampling.window=72"),
    ],
)
def test_settings_that_do_not_go_together(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_run_config("sgmse/quickstart", words)


SB = ("method.process.name=sbve", "method.network.variant=v2", "method.wrapping.loss_type=data_prediction")
SCORE = (
    "method.process={name: ouve, t_eps: 0.03}",
    "method.wrapping={loss_type: score_matching, network_scaling: 1/sigma}",
    "method.sampling={sampler: exponential, steps: 10}",
    "data.speech=a",
    "data.noise=b",
)


@pytest.mark.parametrize(
    ("name", "changes", "process", "sampler"),
    [
        ("sgmse/voicebank16k", (), {"theta": 1.5, "t_eps": 0.03}, "predictor_corrector"),
        ("sgmse/voicebank16k", SB, {"k": 2.6, "t_eps": 0.03}, "bridge_ode"),
        ("sgmse/fsdd8k", SCORE, {"sigma_max": 0.5, "t_eps": 0.03}, "exponential"),
    ],
)
def test_variants_that_the_configurations_tell_of(
    name: str, changes: tuple[str, ...], process: dict[str, float], sampler: str
) -> None:
    method = load_run_config(name, changes).method
    assert process.items() <= method.process.model_dump().items()
    assert sampler_name(method) == sampler
