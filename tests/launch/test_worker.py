"""A run in this process: what it leaves, and what can be done with it afterwards."""

from __future__ import annotations

import json
import shutil

import pytest

from generative.config import to_yaml
from generative.errors import CheckpointError, ConfigError
from launch import runs
from launch.schema import load_run_config
from launch.worker import prepare, run_worker
from tests.end_to_end.runs import CONFIG, write_text


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_text(folder)
    return folder


def start(texts, folder, *overrides):
    base = [f"run.dir={folder}", f"data.path={texts}", f"data.cache={texts}/cache", "launch.backend=local"]
    config = load_run_config(str(CONFIG), [*base, "train.steps=12", "train.checkpoint.every_steps=4", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    return config


@pytest.fixture(scope="module")
def trained(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    tracked = ("track.tensorboard=true", "train.sample_every=6", "train.log_every=5", "train.validation.every_steps=6")
    config = start(texts, folder, *tracked)
    run_worker(config, folder, rank=0, world=1, attempt=1)
    return folder


def lines(folder, kind):
    every = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


def test_plan_knows_the_sizes(texts, tmp_path):
    config = start(texts, tmp_path / "run")
    plan = prepare(config, tmp_path / "run")
    assert plan.steps == 12
    assert plan.tokens == 12 * 12 * 32
    # embedding 258 x 64, head 257 x 64, two blocks of 4 d^2 + 3 d ff + 2 d, final norm d
    assert plan.parameters == 515 * 64 + 2 * (4 * 64**2 + 3 * 64 * 128 + 2 * 64) + 64
    assert plan.memory_bytes == 4 * 5 * plan.parameters  # weights, gradients, two moments, one average
    assert plan.seconds > 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_steps_follow_from_a_budget(texts, tmp_path):
    config = start(texts, tmp_path / "run", "train.steps=null", "train.flops=1e9")
    blocks = 2 * (4 * 64**2 + 3 * 64 * 128 + 2 * 64) + 64
    assert prepare(config, tmp_path / "run").steps == int(1e9 / (6 * blocks * 12 * 32))
    with pytest.raises(ConfigError, match="less than one step"):
        prepare(start(texts, tmp_path / "run", "train.steps=null", "train.flops=1e3"), tmp_path / "run")


def test_metrics_are_means_over_the_steps_between_lines(texts, tmp_path, trained):
    config = start(texts, tmp_path / "run", "train.validation.every_steps=6")
    run_worker(config, tmp_path / "run", rank=0, world=1, attempt=1)
    every = [line["loss"]["denoise"] for line in lines(tmp_path / "run", "train")]
    seldom = lines(trained, "train")
    assert [line["step"] for line in seldom] == [5, 10, 12]
    assert seldom[0]["loss"]["denoise"] == pytest.approx(sum(every[:5]) / 5, rel=1e-6)
    assert seldom[2]["loss"]["denoise"] == pytest.approx(sum(every[10:]) / 2, rel=1e-6)
    assert seldom[2]["tokens"] == 12 * 12 * 32
    assert lines(trained, "validation") == [
        line | {"time": other["time"]}
        for line, other in zip(lines(tmp_path / "run", "validation"), lines(trained, "validation"), strict=True)
    ]


def test_trackers_samples_and_status(trained):
    assert list((trained / "tensorboard").glob("events*"))
    assert {path.name for path in (trained / "samples").iterdir()} >= {"step_000006.json", "step_000012.json"}
    status = json.loads((trained / "status.json").read_text())
    assert (status["state"], status["step"], status["steps"], status["world"]) == ("complete", 12, 12, 1)
    assert json.loads((trained / "outcome.json").read_text())["state"] == "complete"


def test_evaluation_does_not_depend_on_the_batch_size(trained):
    one = runs.evaluate_run(trained, windows=7, draws=3)["figures"]
    config = runs.read_config(trained)
    smaller = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"batch_size": 2})})
    (trained / "config.yaml").write_text(to_yaml(smaller))
    two = runs.evaluate_run(trained, windows=7, draws=3)["figures"]
    (trained / "config.yaml").write_text(to_yaml(config))
    for name, figure in one.items():
        assert figure["value"] == pytest.approx(two[name]["value"], rel=1e-6), name


def test_samples_repeat_themselves_and_follow_the_seed(trained):
    def texts_of(**options):
        return [item["text"] for item in runs.sample_run(trained, count=2, steps=4, **options)["items"]]

    assert texts_of() == texts_of()
    assert texts_of(seed=1) != texts_of(seed=2)
    assert all(text.startswith("alpha") for text in texts_of(prompt="alpha"))
    assert len(texts_of(prompt="alpha")) == 2


def test_infilling_keeps_what_is_given(trained):
    (item,) = runs.sample_run(trained, infill="al▁▁▁ beta", steps=4)["items"]
    assert item["kind"] == "infill"
    assert len(item["text"]) == len("al▁▁▁ beta")
    assert item["text"].startswith("al")
    assert item["text"].endswith(" beta")
    assert item["states"][-1]["masked"] == []


def test_an_older_checkpoint_can_be_opened(trained):
    step = min((trained / "checkpoints").glob("step_*"))
    assert runs.open_run(step).checkpoint.step == int(step.name.removeprefix("step_"))


def test_another_tokenizer_is_refused(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    changed = (copy / "config.yaml").read_text().replace("name: bytes", "name: characters")
    (copy / "config.yaml").write_text(changed)
    with pytest.raises(CheckpointError, match="tokens"):
        runs.sample_run(copy)


def test_settings_that_a_method_has_not_are_refused(texts, tmp_path):
    folder = tmp_path / "run"
    config = start(texts, folder, "method.name=autoregressive", "evaluate.windows=4")
    run_worker(config, folder, rank=0, world=1, attempt=1)
    figures = json.loads((folder / "evaluation.json").read_text())["figures"]
    assert figures["nll"]["bound"] is None
    with pytest.raises(ConfigError, match="no such setting"):
        runs.sample_run(folder, steps=4)
    with pytest.raises(ConfigError, match="fill"):
        runs.sample_run(folder, infill="a▁b")
