"""A run in this process: what it leaves, and what can be done with it afterwards."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import ANY

import pytest

from evaluation.report import write_report
from generative.config import to_yaml
from generative.errors import CheckpointError, ConfigError, DataError
from launch import runs
from launch.modality import modality
from launch.prometheus import Prometheus, check_port
from launch.worker import prepare, run_worker
from tests.support.fork_server import modules_after
from tests.support.schema import check_lines, check_status
from tests.support.text_runs import finished, start


@pytest.fixture(scope="module")
def trained(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    tracked = ("track.tensorboard=true", "train.sample_every=6", "train.log_every=5", "train.validation.every_steps=6")
    return finished(texts, folder, *tracked)


def lines(folder, kind):
    every = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


@pytest.fixture
def failing(texts, tmp_path, monkeypatch):
    """Runs rank 1 of 2, which meets an error."""

    def run(error):
        def fail(*arguments):
            raise error

        monkeypatch.setattr("launch.worker._run", fail)
        config = start(texts, tmp_path / "run", "launch.workers=2")
        run_worker(config, tmp_path / "run", rank=1, world=2, attempt=1)
        return json.loads((tmp_path / "run" / "outcome.json").read_text())

    return run


def test_an_error_that_all_ranks_agreed_on_ends_them_quietly(failing):
    assert failing(CheckpointError("no room").on_all_ranks())["problem"] == "no room"


def test_a_rank_that_meets_an_error_alone_dies_of_it_and_leaves_the_cause(failing, tmp_path):
    with pytest.raises(DataError, match="shard 3"):
        failing(DataError("shard 3 is damaged", "a whole one", "prepare it again"))
    recorded = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert (recorded["state"], recorded["remedy"]) == ("failed", "prepare it again")


def test_a_full_disk_does_not_hide_the_error(failing, tmp_path):
    (tmp_path / "run" / "outcome.json").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no room"):
        failing(CheckpointError("no room").on_all_ranks())


def test_a_signal_while_figures_are_made_ends_the_run_as_it_would_a_program(texts, tmp_path, monkeypatch):
    """All that was trained is saved by then; only while there is something to save does the first one wait."""

    def end(number, frame):
        raise KeyboardInterrupt

    config = start(texts, tmp_path / "run", "train.steps=1")
    monkeypatch.setattr(
        modality(config), "finish", lambda *words: [os.kill(os.getpid(), signal.SIGTERM), time.sleep(5)]
    )
    previous = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_worker(config, tmp_path / "run", rank=0, world=1, attempt=1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert (tmp_path / "run" / "checkpoints" / "step_000001").is_dir()


def test_plan_knows_the_sizes(texts, tmp_path):
    config = start(texts, tmp_path / "run")
    plan = prepare(config, tmp_path / "run")
    assert plan.steps == 12
    assert plan.tokens == 12 * 12 * 32
    # embedding 258 x 64, head 257 x 64, two blocks of 4 d^2 + 3 d ff + 2 d, final norm d
    assert plan.parameters == 515 * 64 + 2 * (4 * 64**2 + 3 * 64 * 128 + 2 * 64) + 64
    # weights, gradients, two moments, one average, and a count of steps for each of 15 tensors
    assert plan.memory_bytes == 4 * 5 * plan.parameters + 4 * 15
    assert plan.seconds > 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_steps_follow_from_a_budget(texts, tmp_path):
    config = start(texts, tmp_path / "run", "train.steps=null", "train.flops=1e9")
    blocks = 2 * (4 * 64**2 + 3 * 64 * 128 + 2 * 64) + 64
    assert prepare(config, tmp_path / "run").steps == int(1e9 / (6 * blocks * 12 * 32))
    with pytest.raises(ConfigError, match="less than one step"):
        prepare(start(texts, tmp_path / "run", "train.steps=null", "train.flops=1e3"), tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.init_from=/no/such/run", ["init_from of network 'net'", "/no/such/run"]),
        ("train.networks.nett.schedule.name=linear", ["train.networks.nett", "Did you mean net?"]),
        ("train.networks.net.init_from=network:other", ["train.networks.net.init_from", "'other'"]),
        ("train.optimizer.no_decay=[nothing]", ["train.optimizer.no_decay", "'nothing'"]),
    ],
)
def test_mistakes_in_networks_are_found_before_any_worker_starts(texts, tmp_path, override, words):
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        prepare(start(texts, tmp_path / "run", override), tmp_path / "run")
    assert all(word in caught.value.problem for word in words), caught.value


CHARACTERS = "data.tokenizer.name=characters"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["method.sampling.stop_at_eos=true", CHARACTERS], "'characters' has no end of text"),
        (["method.sampling.count=even", "method.sampling.steps=64"], "64 steps for 31 masked tokens"),
        (["method.sampling.count=even", "method.sampling.steps=9"], "9 steps for 8 masked tokens"),
        (["method.sampling.block_length=2"], "steps=4 for 16 blocks"),
        (["method.sampling.forbidden_ids=[999]"], "no token 999"),
        (["method={name: autoregressive, sampling: {stop_at_eos: true}}", CHARACTERS], "has no end of text"),
        (["data.sequence_length=2"], "data.sequence_length=2, but the evaluation"),
        (["data.sequence_length=1"], "leaves no room in a sample of 1"),
    ],
)
@pytest.mark.parametrize("when", ["sample.at_end=true", "train.sample_every=6"])
def test_what_fails_after_training_is_found_before_it(texts, tmp_path, overrides, told, when):
    last = ["sample.at_end=false", when, "evaluate.only_likelihood=true"]
    asked = last[: 2 if "evaluation" in told else 3]
    with pytest.raises(ConfigError) as caught:
        prepare(start(texts, tmp_path / "run", *asked, *overrides), tmp_path / "run")
    assert told in caught.value.problem


@pytest.mark.parametrize(
    "overrides",
    [
        ["method.sampling.block_length=2", "sample.at_end=false"],
        ["method.sampling.count=even", "method.sampling.steps=8"],
        ["method.sampling.count=even", "method.sampling.steps=31", "sample.infill=0"],
        ["method.sampling.stop_at_eos=true"],
        ["data.sequence_length=3"],
        ["data.sequence_length=2", "evaluate.only_likelihood=true"],
        ["data.sequence_length=2", "evaluate.at_end=false"],
    ],
)
def test_what_does_not_fail_is_not_refused(texts, tmp_path, overrides):
    assert prepare(start(texts, tmp_path / "run", *overrides), tmp_path / "run").steps == 12


def test_a_warm_start_is_compared_before_any_worker_starts(texts, tmp_path, trained):
    fitting = start(texts, tmp_path / "run", f"method.init_from={trained}")
    assert prepare(fitting, tmp_path / "run").steps == 12
    wide = start(texts, tmp_path / "run", f"method.init_from={trained}", "method.network.width=128")
    with pytest.raises(
        CheckpointError, match=r"attention\.out\.weight is \[64, 64\] instead of \[128, 128\]"
    ) as caught:
        prepare(wide, tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 3
    assert " more)" in caught.value.problem


def test_the_guessed_time_counts_all_workers(texts, tmp_path, monkeypatch):
    monkeypatch.setattr("launch.plan.measured_matmul_flops", lambda: 1e9)
    config = start(texts, tmp_path / "run")
    plan = prepare(config, tmp_path / "run")
    assert plan.seconds == pytest.approx(plan.flops / (config.plan.mfu * 1e9))
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert prepare(config, tmp_path / "run").seconds == pytest.approx(plan.seconds / 4)


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


def test_what_a_run_writes_is_as_the_schema_says(trained):
    metrics, events = check_lines(trained)
    assert metrics == 3 + 2
    assert events >= 5
    status = check_status(trained)
    assert status.peak_source.startswith("measured: fp32 matrix product")
    last = lines(trained, "train")[-1]
    assert (status.mfu, status.host_memory_gb, status.eta_seconds) == (last["mfu"], last["host_memory_gb"], 0)


def test_profiles_are_made_where_asked_and_nothing_is_done_where_not(texts, tmp_path, trained, monkeypatch):
    config = start(texts, tmp_path / "run", "train.profile.steps=6,12", "train.validation.every_steps=6")
    run_worker(config, tmp_path / "run", rank=0, world=1, attempt=1)
    traces = sorted(path.name for path in (tmp_path / "run" / "profile").glob("*.gz"))
    assert traces == ["step_000006_rank0.json.gz", "step_000012_rank0.json.gz"]
    check_lines(tmp_path / "run")
    assert not (trained / "profile").exists()
    monkeypatch.setattr("launch.worker.ProfileHook", None)
    plain = start(texts, tmp_path / "plain", "evaluate.at_end=false", "sample.at_end=false")
    run_worker(plain, tmp_path / "plain", rank=0, world=1, attempt=1)
    assert json.loads((tmp_path / "plain" / "status.json").read_text())["state"] == "complete"


def test_metrics_are_served_while_training_and_no_longer(texts, tmp_path, monkeypatch):
    pytest.importorskip("prometheus_client")
    served = []

    class Kept(Prometheus):
        def log(self, step, values):
            super().log(step, values)
            address = f"http://127.0.0.1:{self._server.server_port}/metrics"
            served.append(urllib.request.urlopen(address, timeout=5).read().decode())

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr("launch.trackers.Prometheus", Kept)
    config = start(texts, tmp_path / "run", f"track.prometheus={port}", "train.steps=3")
    run_worker(config, tmp_path / "run", rank=0, world=1, attempt=1)
    assert [next(step for step in (1, 2, 3) if f"_step {step}.0" in text) for text in served] == [1, 2, 3, 3]
    for name in (
        "loss{",
        "validation_loss{",
        "samples_per_second",
        "tokens_per_second",
        "mfu",
        "restarts",
        "lost_seconds",
        "host_memory",
    ):
        assert f"generative_{name}" in served[-1]
    check_port("127.0.0.1", port)


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


def record(folder):
    names = ("evaluation.json", "report.html")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def test_other_evaluations_leave_the_runs_record_alone(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("evaluations"))
    write_report(folder)
    before = record(folder)
    runs.evaluate_run(folder, windows=4)
    runs.evaluate_run(folder / "checkpoints" / "step_000008")
    runs.evaluate_run(folder / "checkpoints" / "step_000008", windows=3, draws=2)
    assert record(folder) == before
    names = ["step_000008.json", "step_000008_windows_3_draws_2.json", "step_000012_windows_4.json"]
    assert sorted(path.name for path in (folder / "evaluations").iterdir()) == names
    assert json.loads((folder / "evaluations" / names[0]).read_text())["step"] == 8


def test_an_evaluation_of_many_long_settings_has_a_file_of_its_own(trained, tmp_path):
    """Names of files end at 255 bytes, and settings that differ in a part that is cut off are two evaluations."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("evaluations"))
    many = [f"method.sampling.{key}" for key in ("name=random", "steps=7", "temperature=0.9", "top_p=0.8", "top_k=5")]
    for first in (1, 2):
        ids = ",".join(map(str, [first, *range(3, 40)]))
        runs.evaluate_run(folder, windows=1, overrides=[*many, f"method.sampling.forbidden_ids=[{ids}]"])
    assert len(list((folder / "evaluations").iterdir())) == 2


def test_names_of_evaluations_are_short_enough_in_any_script():
    parts = ["step_000012", *(f"weights_{letter * 60}" for letter in ("\u00e4", "\u6f22", "\U00010400", "e"))]
    stem = runs._file_stem(parts)
    assert len(stem.encode()) <= 200
    assert stem.startswith("step_000012_weights_\u00e4")
    assert stem != runs._file_stem([*parts[:-1], "weights_f"])
    assert runs._file_stem(parts[:1]) == "step_000012"
    same = "1-2-3" * 12
    assert runs._in_a_name(same) == same
    assert len({runs._in_a_name(tuple(range(first, 60))) for first in range(3)}) == 3
    assert runs._in_a_name(Path("models/tiny")) == "tiny"


@pytest.mark.parametrize("door", ["run", "checkpoint"])
def test_the_runs_own_evaluation_gives_its_figures_again_and_a_new_report(trained, tmp_path, door):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    before = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").unlink()
    written = []
    path = folder if door == "run" else folder / "checkpoints" / "step_000012"
    runs.evaluate_run(path, windows=before["windows"], on_written=written.append)
    assert written == [folder / "evaluation.json"]
    assert json.loads((folder / "evaluation.json").read_text()) == before | {"time": ANY}
    assert before["data"].removeprefix("held-out part of ") in (folder / "report.html").read_text()


def test_a_bf16_run_is_opened_in_the_precision_that_it_was_evaluated_in(texts, tmp_path):
    folder = tmp_path / "run"
    config = start(texts, folder, "train.precision=bf16", "evaluate.windows=6")
    run_worker(config, folder, rank=0, world=1, attempt=1)
    ended = json.loads((folder / "evaluation.json").read_text())["figures"]
    assert runs.evaluate_run(folder)["figures"] == ended
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("precision: bf16", "precision: fp32"))
    assert runs.evaluate_run(folder)["figures"]["elbo"] != ended["elbo"]


def test_samples_repeat_themselves_and_follow_the_seed(trained):
    def texts_of(**options):
        return [item["text"] for item in runs.sample_run(trained, count=2, steps=4, **options)["items"]]

    assert texts_of() == texts_of()
    assert texts_of(seed=1) != texts_of(seed=2)
    assert all(text.startswith("alpha") for text in texts_of(prompt="alpha"))
    assert len(texts_of(prompt="alpha")) == 2


def test_asked_samples_are_kept_apart(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    own = sorted((folder / "samples").glob("*.json"))
    drawn = runs.sample_run(folder, count=1, steps=2, order="confidence")
    assert sorted((folder / "samples").glob("*.json")) == own
    assert json.loads((folder / "samples" / "asked" / "step_000012.json").read_text()) == drawn


@pytest.mark.parametrize(
    ("options", "words"), [({"order": "greedy"}, "greedy"), ({"temperature": -1.0}, "temperature")]
)
def test_options_are_checked_as_settings_are(trained, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        runs.sample_run(trained, **options)
    assert "command line" in str(caught.value)


def test_infilling_keeps_what_is_given(trained):
    (item,) = runs.sample_run(trained, infill="al▁▁▁ beta", steps=4)["items"]
    assert item["kind"] == "infill"
    assert len(item["text"]) == len("al▁▁▁ beta")
    assert item["text"].startswith("al")
    assert item["text"].endswith(" beta")
    assert item["states"][-1]["masked"] == []


def test_a_text_is_filled_in_as_often_as_asked_each_time_anew(trained):
    items = runs.sample_run(trained, infill="al▁▁▁▁▁▁ beta", steps=6, count=3)["items"]
    assert len({item["text"] for item in items}) == 3
    assert items[0] == runs.sample_run(trained, infill="al▁▁▁▁▁▁ beta", steps=6)["items"][0]


def test_a_beginning_and_a_text_to_fill_in_are_not_both_heard(trained):
    with pytest.raises(ConfigError, match="--infill"):
        runs.sample_run(trained, prompt="al", infill="a▁")


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


@pytest.mark.parametrize(
    ("override", "words"), [("sample.length=1", "at least 2"), ("track.wandb=mine", "package wandb")]
)
def test_what_only_rank_0_would_meet_is_found_beforehand(texts, tmp_path, override, words):
    if "wandb" in override and importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed here")
    with pytest.raises(ConfigError, match=words):
        prepare(start(texts, tmp_path / "run", override), tmp_path / "run")


@pytest.mark.parametrize(
    ("prompts", "overrides", "remedy"),
    [
        (False, ["method.answers.prompt_dropping=0.1"], "data.name=pairs"),
        (False, ["method.answers.normalisation=answers"], "data.name=pairs"),
        (True, ["method.random_length_ratio=0.1"], "method.answers.noise_prompts=true"),
        (True, ["method.random_length_ratio=0.1", "method.answers.noise_prompts=true"], None),
        (True, ["method.answers.prompt_dropping=0.1"], None),
    ],
)
def test_settings_of_answers_without_effect_are_refused(texts, tmp_path, prompts, overrides, remedy):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n" + json.dumps({"prompt": "c", "response": "d"}))
    data = [f"data={{name: pairs, path: {file}, sequence_length: 8}}"] if prompts else []
    config = start(texts, tmp_path / "run", *data, *overrides)
    with pytest.raises(ConfigError) if remedy else nullcontext() as found:
        prepare(config, tmp_path / "run")
    assert remedy is None or remedy in found.value.remedy


PREPARES = """
import pathlib, sys
from launch.run import training
from launch.schema import load_run_config
config = load_run_config(sys.argv[1], [f"run.dir={sys.argv[2]}", f"data.cache={sys.argv[2]}"])
training().prepare(config, pathlib.Path(sys.argv[2]), lambda done, of: None)
"""


def test_what_only_other_commands_need_is_not_imported_to_prepare_a_run(tmp_path):
    others = {"torch._dynamo", "torch.distributed.tensor", "sympy", "deepspeed", "transformers"}
    assert modules_after(PREPARES, "masked_diffusion/quickstart", str(tmp_path)) & others == set()
