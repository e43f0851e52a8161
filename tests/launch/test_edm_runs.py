"""EDM through the launcher: training with validation, pictures, evaluation, other samplers, and mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from generative.errors import ConfigError, GenerativeError
from generative.methods.edm.config import EdmConfig
from generative.training.checkpoint import Checkpoint, open_checkpoint
from generative.training.networks import checkpoint_weights
from generative.training.post_hoc import post_hoc_average
from launch import runs
from launch.cli import main
from launch.image_actors import _drawer
from launch.image_checks import check_classes
from launch.image_labels import number_of
from launch.image_samples import picture, sample_streams
from launch.image_task import fake_batch, known_facts
from launch.run import train
from launch.schema import load_run_config
from tests.support.image_runs import SMALL_LOOKS
from tests.support.schema import check_lines, check_status

TINY = (
    "train.steps=4",
    "train.batch_size=16",
    "train.sample_every=2",
    "train.log_every=2",
    "train.checkpoint.every_steps=2",
    "train.validation.every_steps=2",
    "train.validation.samples=32",
    *SMALL_LOOKS,
    "method.network.width=8",
    "method.network.dropout=0.1",
    "method.augmentation.probability=0.2",
    "method.ema_power=[0.1]",
    "method.sampling.steps=3",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert train("edm/quickstart", [*TINY, f"run.dir={folder}"]) == 0
    return folder


def test_a_run_leaves_pictures_figures_and_held_out_losses(finished: Path) -> None:
    check_lines(finished)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    held_out = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in held_out] == [2, 4]
    assert all(0 < line["loss"]["denoise"]["value"] < 10 for line in held_out)
    assert len(held_out[0]["metrics"]["denoise"]["loss_by_noise"]) == 10
    told = check_status(finished).curves
    assert told is not None
    assert len(told["loss_by_noise"].edges) == 11
    figures = json.loads((finished / "evaluation.json").read_text())["figures"]
    assert {"fid", "kid", "coverage"} <= figures.keys()
    assert (finished / "samples" / "step_000004.png").stat().st_size > 100
    assert "data:image/png;base64," in (finished / "report.html").read_text()


def test_checkpoints_hold_both_kinds_of_averages(finished: Path) -> None:
    names = {name.split("/")[2] for name in open_checkpoint(finished).names() if name.startswith("ema/")}
    assert names == {"0.998", "power-0.1"}


def test_an_average_of_any_width_is_sampled_measured_and_exported(finished: Path, tmp_path: Path) -> None:
    """The same weights by each command: those of the least squares over what the two checkpoints keep."""
    checkpoints = [Checkpoint(finished / "checkpoints" / f"step_{step:06d}") for step in (2, 4)]
    wanted = post_hoc_average(checkpoints, "net", 0.105)
    assert main(["export", str(finished), "--to", str(tmp_path / "out"), "--weights", "power=0.105"]) == 0
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored.keys() == wanted.keys()
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor, wanted[name])
    assert "power 0.105 made of 2 averages" in (tmp_path / "out" / "README.md").read_text()
    nets, worn = runs.open_run(finished).networks("power=0.105")
    assert worn.startswith("power 0.105 made of 2 averages (")
    torch.testing.assert_close(nets["net"].state_dict(), wanted)
    drawn = runs.sample_run(finished, count=4, overrides=["sample.weights=power=0.105"])
    assert drawn["model"] == worn
    written: list[Path] = []
    told = runs.evaluate_run(finished, overrides=["evaluate.weights=power=0.105"], on_written=written.append)
    assert (told["model"], written[0].name) == (worn, "step_000004_weights_power-0.105.json")
    nets, worn = runs.open_run(finished).networks("ema=power-0.1")
    assert worn == "ema power-0.1"


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("power=0.3", "above 0 and at most 0.28"),
        ("power=wide", "not a relative width"),
        ("power=0.02", "come no nearer"),
        ("ema=0.5", "no such average"),
        ("best", "ema, trained, ema=RATE or power=WIDTH"),
    ],
)
def test_weights_that_cannot_be_had(finished: Path, weights: str, told: str) -> None:
    with pytest.raises(GenerativeError, match=told):
        runs.sample_run(finished, count=4, overrides=[f"sample.weights={weights}"])


def test_weights_made_afterwards_are_no_setting_of_a_training(tmp_path: Path) -> None:
    words = [*TINY, f"run.dir={tmp_path}", "evaluate.weights=power=0.1"]
    with pytest.raises(ConfigError, match=r"evaluate\.weights=power=0\.1 in a training"):
        train("edm/quickstart", words)


def test_chosen_classes_are_dealt_out_in_turn(finished: Path) -> None:
    """Each sample is the model's for that class and the noise of its number; the picture says which class it shows."""
    run = runs.open_run(finished)
    nets, _ = run.networks("ema")
    streams, ids = sample_streams(run.config.sample.seed), torch.arange(5)
    wanted = run.method.sampler(nets)({"sample_id": ids, "label": torch.tensor([3, 7, 3, 7, 3])}, streams)
    drawn = runs.sample_run(finished, label=["3", "seven"], count=5)
    grid = drawn["items"][0]
    assert (grid["title"], grid["file"]) == ("5 samples of three (3), seven (7) in turn", "step_000004_class_3_7.png")
    assert (grid["labels"], grid["columns"]) == ([3, 7, 3, 7, 3], 4)
    for i, label in enumerate(grid["labels"]):
        file = Path(drawn["folder"]) / f"step_000004_{i:04d}_class_{label}.png"
        assert file.read_bytes() == picture(wanted[i][None], 1, "image")
    changes = {"sample.labels": ["3", "seven"], "sample.count": 5}
    by_worker = _drawer(str(run.checkpoint.path), changes)((2, 5))
    torch.testing.assert_close(torch.from_numpy(by_worker), wanted[2:], rtol=1e-4, atol=1e-4)
    plain = runs.sample_run(finished, count=5)["items"][0]
    assert (plain["title"], plain["file"], "labels" in plain) == ("5 samples", "step_000004.png", False)


def test_no_count_gives_some_of_each_class_also_of_a_checkpoint(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["sample", str(finished / "checkpoints" / "step_000002"), "--label", "zero", "--label", "9"]
    assert main([*asked, "--label", "4", "sample.neighbours=0"]) == 0
    assert "24 samples of zero (0), nine (9), four (4) in turn (ema" in capsys.readouterr().out
    record = json.loads((finished / "samples" / "asked" / "step_000002.json").read_text())
    assert (record["items"][0]["labels"], record["items"][0]["columns"]) == ([0, 9, 4] * 8, 6)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("10", "--label 10: the model knows no such class.*expected: 0 .. 9, or a name as zero, one"),
        ("-1", "--label -1: the model knows no such class"),
        ("sevn", "Did you mean seven?"),
    ],
)
def test_classes_that_the_model_does_not_know(finished: Path, label: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}.*correct --label"):
        runs.sample_run(finished, label=[label], count=4)


def test_classes_of_a_model_that_is_told_none(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    told = (tmp_path / "run" / "config.yaml").read_text()
    assert "classes: null" in told
    (tmp_path / "run" / "config.yaml").write_text(told.replace("classes: null", "classes: 0"))
    with pytest.raises(ConfigError, match=r"--label 3 with a model that is told no classes \(edm\)"):
        runs.sample_run(tmp_path / "run", label=["3"])
    with pytest.raises(ConfigError, match=r"sample\.labels=\[3\] in a training"):
        train("edm/quickstart", [*TINY, f"run.dir={tmp_path / 'other'}", "sample.labels=[3]"])


def test_a_name_that_looks_like_a_number_is_a_name_where_a_text_is_given() -> None:
    names = ("1", "2", "10")
    assert [number_of(label, 3, names) for label in ("1", 1, "10", "0", 2)] == [0, 1, 2, 0, 2]


@pytest.mark.parametrize(("layout", "told"), [("released", "pickles"), ("diffusers", "UNet2DModel cannot express it")])
def test_layouts_that_cannot_be_written(
    finished: Path, tmp_path: Path, layout: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(finished), "--to", str(tmp_path / "out"), "--layout", layout]) != 0
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_sampler_is_asked_for(finished: Path) -> None:
    written: list[Path] = []
    before = (finished / "evaluation.json").read_bytes()
    words = ["method.sampling.sampler=dpm_solver_2m", "method.sampling.steps=2"]
    runs.evaluate_run(finished, overrides=words, on_written=written.append)
    assert written[0].name == "step_000004_sampler_dpm_solver_2m_steps_2.json"
    assert (finished / "evaluation.json").read_bytes() == before
    drawn = runs.sample_run(finished, count=4, steps=2)
    path = Path(drawn["folder"]) / drawn["items"][0]["file"]
    first = path.read_bytes()
    runs.sample_run(finished, count=4, overrides=["method.sampling.sampler=euler"])
    assert path.read_bytes() != first


def test_a_run_of_one_step_without_a_learning_rate_keeps_what_it_started_from(finished: Path, tmp_path: Path) -> None:
    words = ["train.steps=1", "train.schedule.warmup_steps=1", f"method.init_from={finished}", "method.ema_power=[]"]
    quiet = ["evaluate.at_end=false", "sample.at_end=false", "train.validation.every_steps=null"]
    assert train("edm/quickstart", [*TINY, *words, *quiet, f"run.dir={tmp_path / 'run'}"]) == 0
    before, after = (checkpoint_weights(open_checkpoint(path), "net") for path in (finished, tmp_path / "run"))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    average = checkpoint_weights(open_checkpoint(tmp_path / "run"), "net", 0.998)
    torch.testing.assert_close(average, before, rtol=0, atol=0)


def test_points_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples of shape"):
        train("edm/quickstart", [*TINY, "data.name=points", f"run.dir={tmp_path / 'run'}"])


def test_data_without_the_classes_that_are_asked_for() -> None:
    config, data = SimpleNamespace(method=EdmConfig(classes=10)), SimpleNamespace(classes=None, description="photos")
    with pytest.raises(ConfigError, match="photos has no classes"):
        check_classes(config, data)  # type: ignore[arg-type]


def test_a_plan_knows_classes_before_the_data_are_there() -> None:
    config = load_run_config("edm/cifar10", ["data.id=nobody/nothing"])
    facts = known_facts(config)
    assert facts.classes == 10
    assert fake_batch(facts, 3, 3)["label"].shape == (3,)
