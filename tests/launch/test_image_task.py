"""Image runs through the launcher: training, pictures, evaluation by ranks and by workers, and mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from evaluation.images import small
from evaluation.images.small_network import SmallSettings
from evaluation.run_state import run_state
from generative.errors import ConfigError, DataError, GenerativeError
from generative.method import Alone
from launch import image_actors, runs
from launch.cli import main
from launch.image_evaluation import Part
from launch.image_task import all_of, check, open_data
from launch.results import evaluation_line, figures_table
from launch.run import train
from launch.schema import load_run_config
from tests.support.actors import ActorsHere, actors_here
from tests.support.schema import check_lines

TINY = (
    "train.steps=6",
    "train.batch_size=16",
    "train.sample_every=3",
    "train.log_every=2",
    "train.checkpoint.every_steps=3",
    "evaluate.samples=120",
    "evaluate.reference_samples=150",
    "evaluate.batch_size=50",
    "sample.count=9",
    "sample.monitor=60",
    "sample.neighbours=4",
    "method.sampling.standing_samples=500",
    "launch.backend=local",
    "launch.workers=1",
)
PIXELS = "evaluate.extractor=pixels"
STACKED = "data={name: stacked_digits, size: 3000, validation_size: 600}"


@pytest.fixture(scope="module", autouse=True)
def brief_judge() -> Iterator[None]:
    """The extractor `small` learns for a few steps: how well it tells digits apart is not asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small, "SmallSettings", partial(SmallSettings, steps=30))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on stacked digits with the small extractor."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert train("mee_gan/quickstart", [*TINY, STACKED, f"run.dir={folder}"]) == 0
    return folder


def test_an_exported_discriminator_draws_nothing(finished: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["export", str(finished), "--to", "judge", "--network", "discriminator", "--weights", "trained"]
    assert main(words) == 0
    assert main(["sample", "judge", "--count", "2"]) == 2
    told = capsys.readouterr().err
    assert "holds the network discriminator" in told
    assert "expected: the network generator" in told
    assert not (tmp_path / "samples").exists()


def test_a_run_leaves_pictures_figures_and_a_report(finished: Path) -> None:
    for step in ("000003", "000006"):
        record = json.loads((finished / "samples" / f"step_{step}.json").read_text())
        assert [item["kind"] for item in record["items"]] == ["grid", "neighbours"]
        for item in record["items"]:
            with Image.open(finished / "samples" / item["file"]) as picture:
                assert picture.mode == "RGB"
    with Image.open(finished / "samples" / "step_000006.png") as picture:
        assert picture.size == (3 * 64 + 2, 3 * 64 + 2)
    figures = json.loads((finished / "evaluation.json").read_text())["figures"]
    assert {"fid", "kid", "coverage", "modes", "mode_kl", "confidence"} <= figures.keys()
    assert all(figure["stderr"] is None or figure["stderr"] >= 0 for figure in figures.values())
    assert "classifier" in figures["fid"]["protocol"]
    assert "extractor small" in evaluation_line(json.loads((finished / "evaluation.json").read_text()))
    check_lines(finished)
    metrics = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if line["kind"] == "monitor"] == [3, 6]
    assert "data:image/png;base64," in (finished / "report.html").read_text()
    assert run_state(json.loads((finished / "status.json").read_text()), {"state": "complete"}, 0.0) == "complete"


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> ActorsHere:
    return actors_here(monkeypatch, image_actors)


def test_workers_measure_what_one_process_does(finished: Path, actors: ActorsHere) -> None:
    told: list[tuple[int, int]] = []
    alone = runs.evaluate_run(finished)
    spread = runs.evaluate_run(finished, workers=2, progress=lambda *counts: told.append(counts))
    assert told[-1] == (270, 270)
    assert len(actors.items) == 4
    assert alone["figures"].keys() == spread["figures"].keys()
    for name, figure in alone["figures"].items():
        assert spread["figures"][name]["value"] == pytest.approx(figure["value"], rel=1e-5, abs=1e-8)
        assert spread["figures"][name]["protocol"] == figure["protocol"]
    assert figures_table(alone).count("\n") >= len(alone["figures"])
    # What was measured at the end of the training is what is measured again.
    own = json.loads((finished / "evaluation.json").read_text())["figures"]
    assert own["fid"]["value"] == pytest.approx(alone["figures"]["fid"]["value"], rel=1e-5)


def test_other_settings_leave_the_record_alone(finished: Path) -> None:
    before = (finished / "evaluation.json").read_bytes()
    written: list[Path] = []
    runs.evaluate_run(finished, overrides=["evaluate.samples=60", PIXELS], on_written=written.append)
    assert (finished / "evaluation.json").read_bytes() == before
    assert written[0].name == "step_000006_samples_60_extractor_pixels.json"
    runs.evaluate_run(finished, overrides=["evaluate.metrics=[fid]", "evaluate.features=50"], on_written=written.append)
    assert (finished / "evaluation.json").read_bytes() == before
    assert written[1].name == "step_000006_metrics_fid_features_50.json"


def test_samples_are_those_of_one_process(finished: Path, actors: ActorsHere) -> None:
    drawn = runs.sample_run(finished, count=7)
    path = Path(drawn["folder"]) / drawn["items"][0]["file"]
    alone = path.read_bytes()
    assert str(path) in runs.samples_shown(finished, drawn)[0]
    path.unlink()
    runs.sample_run(finished, count=7, workers=3)
    assert path.read_bytes() == alone
    runs.sample_run(finished, count=7, seed=1)
    assert path.read_bytes() != alone


def test_parts_survive_the_way_between_ranks() -> None:
    part = Part(None, torch.arange(6.0).view(3, 2))
    found = all_of(part, Alone(), torch.device("cpu"))
    assert found.modes is not None
    assert torch.equal(found.modes, torch.arange(6.0).view(3, 2))


def test_points_have_modes_and_dots(tmp_path: Path) -> None:
    words = ["data.name=points", "data.size=2000", "method.network.bounded=false", "train.steps=3"]
    assert train("mee_gan/quickstart", [*TINY, *words, f"run.dir={tmp_path / 'run'}"]) == 0
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())["figures"]
    assert figures.keys() == {"modes", "high_quality", "mode_kl"}
    assert (tmp_path / "run" / "samples" / "step_000003.png").stat().st_size > 100


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def lines(folder: Path) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: row.get(key) for key in ("kind", "step", "loss", "grad_norm", "metrics")} for row in rows]

    quiet = [*TINY, "evaluate.at_end=false", "sample.at_end=false"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train("mee_gan/quickstart", [*quiet, f"run.dir={straight}"]) == 0
    shutil.copytree(straight, stopped)
    (stopped / "outcome.json").unlink()
    shutil.rmtree(stopped / "checkpoints" / "step_000006")
    assert train("mee_gan/quickstart", [*quiet, f"run.dir={stopped}"]) == 0
    assert lines(straight) == lines(stopped)
    names = [path.relative_to(straight) for path in straight.glob("checkpoints/step_000006/*.safetensors")]
    assert names
    for name in names:
        mine, theirs = load_file(straight / name), load_file(stopped / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train.batch_size=4000"], ["1400", "train.batch_size=4000"]),
        (["method.entropy.neighbour=2000"], ["method.entropy.neighbour", "method.buffer_size"]),
        (["evaluate.extractor=inception"], ["extractor_weights", "evaluate.extractor=small"]),
        (
            ["evaluate.extractor=inception", "evaluate.extractor_weights=none.pth"],
            ["none.pth", "extractor=small"],
        ),
        (["evaluate.metrics=[fud]"], ["fud", "fid"]),
        (["evaluate.samples=19"], ["evaluate.samples=19", "too few for prd", "20 or more", "out of evaluate.metrics"]),
        (["evaluate.metrics=[fid,prdc]", "evaluate.reference_samples=5"], ["5 real images", "prdc", "6 or more"]),
        (
            ["evaluate.at_end=false", "evaluate.every_steps=3", "evaluate.features=3"],
            ["evaluate.features=3", "improved", "4 or more", "evaluate.every_steps=null"],
        ),
        (["evaluate.metrics=[fid,inception_score]", PIXELS], ["inception_score", "evaluate.extractor=inception"]),
        (["train.validation.every_steps=5"], ["train.validation.every_steps", "sample_every"]),
        (["train.micro_batch_size=8"], ["micro_batch_size", "couples the samples"]),
        (
            ["method.buffer=released", "method.entropy.form=log_mean"],
            ["method.buffer_columns=16", "train.batch_size=16"],
        ),
        (["parallel.strategy=fsdp", "method.r1=1.0"], ["gradients of gradients", "parallel.strategy"]),
        (["method.network={name: dcgan}"], ["dcgan", "8"]),
        (["data.name=stacked_digit"], ["stacked_digit"]),
        (["method.presett=paper"], ["method.presett", "method.preset"]),
    ],
)
def test_mistakes_are_found_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: list[str]
) -> None:
    if words == ["method.network={name: dcgan}"]:
        words = [*words, "data.name=points"]
    code = main(["train", "mee_gan/quickstart", *TINY, *words, f"run.dir={tmp_path / 'run'}"])
    error = capsys.readouterr().err
    assert code == 2, error
    for word in told:
        assert word in error, error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_folders_of_unsuitable_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, side in enumerate((16, 16, 24)):
        Image.fromarray(np.full((side, side, 3), number, dtype=np.uint8)).save(images / f"{number}.png")
    base = [
        "train",
        "mee_gan/quickstart",
        *TINY,
        "data.name=folder",
        f"data.path={images}",
        f"run.dir={tmp_path / 'run'}",
    ]
    base += [f"data.cache={tmp_path / 'cache'}"]
    assert main(base) == 2
    assert "2.png" in capsys.readouterr().err
    (images / "2.png").write_bytes(b"no picture")
    assert main(base) == 2
    assert "2.png" in capsys.readouterr().err


def test_an_exported_generator_starts_a_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(finished), "--to", str(tmp_path / "all")]) == 2
    assert "generator, discriminator" in capsys.readouterr().err
    out = tmp_path / "digits"
    assert main(["export", str(finished), "--to", str(out), "--network", "generator", "--weights", "ema"]) == 0
    assert "batch normalisation" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    for words in (
        "pipeline_tag: unconditional-image-generation",
        "The generator (",
        "samples of shape [3, 8, 8]",
        "| data | stacked digits |",
        "| FID |",
        f"train.networks.generator.init_from={out.name}",
    ):
        assert words in card, words
    assert "token" not in card
    words = [*TINY, STACKED, "train.steps=1", "evaluate.at_end=false", "sample.at_end=false"]
    words += [f"train.networks.generator.init_from={out}", f"run.dir={tmp_path / 'run'}"]
    assert main(["train", "mee_gan/quickstart", *words]) == 0


def test_text_options_are_refused_for_images(finished: Path) -> None:
    with pytest.raises(ConfigError, match="--prompt"):
        runs.sample_run(finished, prompt="a")
    with pytest.raises(GenerativeError, match="windows"):
        runs.evaluate_run(finished, windows=3)


def test_nothing_held_out_is_no_reference() -> None:
    config = load_run_config("mee_gan/quickstart", ["evaluate.reference=validation"])
    data = open_data(config)
    check(config, data)
    empty = type(data)(**{**vars(data), "validation": type(data.train)(data.train.pixels[:0], None)})  # type: ignore[attr-defined]
    with pytest.raises((ConfigError, DataError), match=r"evaluate\.reference"):
        check(config, empty)
