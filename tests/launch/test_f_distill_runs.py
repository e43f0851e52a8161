"""f-distill through the launcher: the teacher first, pictures of both, resume, and what is wrong before work starts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from generative.data.image_files import encode_png
from generative.errors import GenerativeError
from generative.hub.loading import load_exported
from generative.method import DataFacts
from generative.methods.f_distill.method import FDistill
from generative.randomness import Streams
from generative.training.checkpoint import open_checkpoint
from generative.training.networks import checkpoint_weights
from launch import runs
from launch.cli import main
from launch.export_card import _usage
from launch.following import Judge
from launch.image_samples import picture, sample_streams
from launch.image_task import known_facts
from launch.modality import build_method
from launch.plan import outline
from launch.ray_following import Following
from launch.run import train
from launch.schema import load_run_config
from launch.teachers import without_missing
from tests.support.image_runs import SMALL_LOOKS
from tests.support.schema import check_lines, check_status

QUIET = (
    "train.batch_size=16",
    "train.log_every=2",
    "train.checkpoint.every_steps=2",
    "evaluate.every_steps=null",
    *SMALL_LOOKS,
)
TEACHER = """
extends: edm/digits
method: {network: {name: mlp, width: 16, blocks: 2, embedding: 8}, ema: [0.9], ema_power: []}
train: {steps: 3, batch_size: 16, sample_every: null, validation: {every_steps: null}, schedule: {warmup_steps: 1}}
evaluate: {at_end: false}
sample: {at_end: false}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def words(place: Path) -> list[str]:
    (place / "teacher.yaml").write_text(TEACHER)
    names = [f"method.teacher={place / 'teacher'}", f"method.teacher_config={place / 'teacher.yaml'}"]
    return [*QUIET, *names, "train.steps=4", "train.sample_every=2", f"run.dir={place / 'student'}"]


@pytest.fixture(scope="module")
def finished(place: Path, words: list[str]) -> Path:
    assert train("f_distill/quickstart", words) == 0
    return place / "student"


def test_student_and_teacher_are_told_the_classes_that_are_asked_for(finished: Path) -> None:
    run = runs.open_run(finished)
    nets, _ = run.networks("ema")
    condition = {"sample_id": torch.arange(3), "label": torch.tensor([5, 8, 5])}
    streams = sample_streams(run.config.sample.seed)
    drawn = runs.sample_run(finished, label=[5, "eight"], count=3)
    student, teacher = drawn["items"][:2]
    assert (student["labels"], student["title"]) == ([5, 8, 5], "3 samples of five (5), eight (8) in turn")
    _, beside = run.method.companion(nets)
    for item, sampler in ((student, run.method.sampler(nets)), (teacher, beside)):
        wanted = picture(sampler(condition, streams), student["columns"], "image")
        assert (Path(drawn["folder"]) / item["file"]).read_bytes() == wanted


def test_the_teacher_is_trained_first_and_what_it_tells_is_kept(finished: Path, place: Path) -> None:
    assert json.loads((place / "teacher" / "outcome.json").read_text())["state"] == "complete"
    method = runs.read_config(finished).method
    assert (method.network.name, method.network.width, method.network.dropout) == ("mlp", 16, 0.0)
    assert (method.shape, method.classes, method.teacher_weights) == ((1, 8, 8), 10, "ema=0.9")
    teacher = runs.read_config(place / "teacher").method
    assert (method.time.sigma_min, method.time.sigma_max) == (teacher.sampling.sigma_min, teacher.sampling.sigma_max)
    assert method.student_sigma == 1.0
    assert method.teacher_steps is None
    assert method.teacher_sampling == teacher.sampling
    averaged = checkpoint_weights(open_checkpoint(place / "teacher"), "net", 0.9)
    kept = checkpoint_weights(open_checkpoint(finished / "checkpoints" / "sources" / "teacher"), "teacher")
    torch.testing.assert_close(kept, averaged, rtol=0, atol=0)


def test_how_the_teacher_draws_may_be_given(finished: Path, words: list[str], tmp_path: Path) -> None:
    elsewhere = [*words, f"run.dir={tmp_path / 'run'}"]
    for change in ("method.teacher_sampling={steps: 3}", "method.teacher_steps=3"):
        config = load_run_config("f_distill/quickstart", [*elsewhere, change])
        method = build_method(config, DataFacts(sample_shape=(1, 8, 8), classes=10))
        assert method.teacher_sampling.steps == 3
        assert method.teacher_sampling.churn == config.method.teacher_sampling.churn == 10  # the teacher's own


def test_a_run_shows_student_and_teacher_from_the_same_noise(finished: Path) -> None:
    check_lines(finished)
    items = json.loads((finished / "samples" / "step_000004.json").read_text())["items"]
    assert [item["kind"] for item in items] == ["grid", "grid", "neighbours"]
    assert items[1]["title"].startswith("the same noise through the teacher (heun, ")
    page = (finished / "report.html").read_text()
    assert items[1]["title"] in page
    assert (check_status(finished).curves or {}).keys() == {"ratio_by_time", "ess_by_time", "auc_by_time"}
    assert '"noise-training-student-ratio_by_time"' in page
    figures = json.loads((finished / "evaluation.json").read_text())["figures"]
    assert {"fid", "improved_recall"} <= figures.keys()


def test_samples_are_asked_for_without_the_teachers_folder(finished: Path, place: Path) -> None:
    (place / "teacher").rename(place / "away")
    try:
        drawn = runs.sample_run(finished, count=4)
        folder = Path(drawn["folder"])
        own, teachers, *_ = runs.samples_shown(finished, drawn)
        assert "(ema 0.98 weights, step 4): " in own
        assert "calls): " in teachers  # whose weights are not the student's
        at_end = (finished / "samples" / "step_000004_companion.png").read_bytes()
        drawn = runs.sample_run(finished)
        assert (folder / "step_000004_companion.png").read_bytes() == at_end
    finally:
        (place / "away").rename(place / "teacher")


def test_there_is_nothing_to_choose_in_how_a_student_draws(finished: Path) -> None:
    with pytest.raises(GenerativeError, match=r"sampling\.steps: the method 'f_distill' has no such setting"):
        runs.sample_run(finished, steps=4)


def test_a_run_that_was_stopped_goes_on_the_same_without_its_teacher(
    finished: Path, place: Path, words: list[str], tmp_path: Path
) -> None:
    """Bit for bit, bins of the ratio and averages included."""
    there = tmp_path / "student"
    shutil.copytree(finished, there, ignore=shutil.ignore_patterns("step_000004*", "outcome.json"))
    (place / "teacher").rename(place / "away")
    try:
        assert train("f_distill/quickstart", [*words, f"run.dir={there}"]) == 0
    finally:
        (place / "away").rename(place / "teacher")
    whole, resumed = open_checkpoint(finished), open_checkpoint(there)
    assert whole.step == resumed.step == 4
    assert any("ratio_means" in name for name in whole.names())
    for name in whole.names():
        torch.testing.assert_close(resumed.tensor(name), whole.tensor(name), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "teacher"), [("cifar10", "edm/cifar10"), ("imagenet64", "edm/imagenet64")])
def test_published_settings_fit_their_teachers(name: str, teacher: str) -> None:
    """What is written down agrees with the configuration of the teacher; a plan needs no teacher."""
    config = load_run_config(f"f_distill/{name}", [f"method.teacher_config={teacher}", "method.teacher=nowhere"])
    assert config.method.source == f"nowhere#net@{load_run_config(teacher).method.ema[0]:g}"
    plain = without_missing(load_run_config(f"f_distill/{name}"))
    assert plain.method.teacher is None
    assert plain.method.network == config.method.network
    for data in (config.data, load_run_config(teacher).data):  # as EDM's own: no mirror, and Lanczos where it resizes
        assert not data.mirror
        assert data.filter == "lanczos"
    told = outline(plain, build_method(plain, known_facts(plain)), known_facts(plain), "")
    assert told.parameters > 5e7


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("method.teacher=nowhere", "no such run"),
        ("method.time.sigma_max=40", "the teacher has"),
        ("method.sigma_data=0.5", "the teacher has"),
        ("method.network={name: mlp, width: 32}", "the teacher has"),
        ("method.time.sigma_min=0.1", r"time\.sigma_min=0\.1, but the teacher has 0\.002[\s\S]*leave out"),
        ("method.shape=[3,8,8]", r"method\.shape=\[3, 8, 8\], but the teacher has \[1, 8, 8\]"),
        ("method.student_sigma=1000", r"student_sigma=1000\.0 with times from[\s\S]*largest noise is usual"),
        ("method.student_sigma=0.001", r"student_sigma=0\.001 with times from"),
        ("method.student_sigma=-1", "a number greater than 0"),
        ("method.steps.levels=[0.5,0.0001]", r"steps\.levels=\[0\.5, 0\.0001\] with times from"),
        ("method.steps.levels=[90]", "levels below the noise that the student starts from"),
        ("method.guidance=2", r"guidance=2, but the teacher was trained with label_dropout=0[\s\S]*leave out"),
        (
            "method.preset=fastgen_sd15",
            r"guidance=1\.75, but the teacher was trained with label_dropout=0[\s\S]*set method\.guidance=1",
        ),
        ("method.teacher_weights=ema=0.5", "the teacher has no such weights"),
        ("data={name: stacked_digits}", "shape"),
        ("train.micro_batch_size=4", "couples the samples"),
    ],
)
def test_what_is_wrong_is_told_before_work_starts(
    finished: Path, words: list[str], tmp_path: Path, change: str, told: str
) -> None:
    here = [*words, "~method.teacher_config", f"run.dir={tmp_path / 'run'}", change]
    with pytest.raises(GenerativeError, match=told):
        train("f_distill/quickstart", here)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_configuration_that_trains_no_teacher(words: list[str], tmp_path: Path) -> None:
    here = [*words, f"method.teacher={tmp_path / 'none'}", "method.teacher_config=mee_gan/quickstart"]
    with pytest.raises(GenerativeError, match=r"method\.teacher_config=mee_gan/quickstart is of the method mee_gan"):
        train("f_distill/quickstart", [*here, f"run.dir={tmp_path / 'run'}"])


@pytest.mark.parametrize(
    ("named", "source"), [("net", "net@0.9"), ("net@0.9", "net@0.9"), ("net@0.5", None)], ids=["network", "average", ""]
)
def test_a_teacher_that_is_named_in_full(
    finished: Path, place: Path, words: list[str], tmp_path: Path, named: str, source: str | None
) -> None:
    """The average that the configuration tells is the one that is distilled, also where the network is named."""
    here = [
        *words,
        "~method.teacher_config",
        f"run.dir={tmp_path / 'run'}",
        f"method.teacher={place / 'teacher'}#{named}",
    ]
    if source is None:
        with pytest.raises(GenerativeError, match=r"method\.teacher=.*#net@0\.5: the teacher has no such weights"):
            load_run_config("f_distill/quickstart", here)
        return
    method = load_run_config("f_distill/quickstart", here).method
    assert method.source == f"{place / 'teacher'}#{source}"
    assert method.teacher_weights == "ema=0.9"


def test_labels_that_the_teacher_needs(words: list[str], tmp_path: Path) -> None:
    """A folder of images without classes, for a teacher of ten."""
    (tmp_path / "images").mkdir()
    for i in range(20):
        (tmp_path / "images" / f"{i}.png").write_bytes(encode_png(np.full((8, 8, 1), 12 * i, dtype=np.uint8)))
    data = f"data={{name: folder, path: {tmp_path / 'images'}, channels: 1, cache: {tmp_path / 'cache'}}}"
    with pytest.raises(
        GenerativeError, match=r"a teacher of 10 classes, and data without labels[\s\S]*data\.classes=true"
    ):
        train("f_distill/quickstart", [*words, "~method.teacher_config", f"run.dir={tmp_path / 'run'}", data])


def test_a_pickle_is_no_teacher_and_is_never_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, mark = tmp_path / "edm-cifar10-32x32-cond-vp.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"ema": Hostile(str(mark))}))
    with pytest.raises(GenerativeError, match=r"vp\.pkl is a file[\s\S]*generative import"):
        train("f_distill/quickstart", [*words, "~method.teacher_config", f"method.teacher={path}", "run.dir=nowhere"])
    assert main(["import", str(path), "--out", str(tmp_path / "out")]) != 0
    told = capsys.readouterr().err
    assert "io.open" in told
    assert "to fix:" in told
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


class Hostile:
    """Unpickled by a plain reader it would make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def followed(place: Path, words: list[str]) -> Path:
    folder = place / "followed"
    more = ["evaluate.every_steps=2", "method.ema=[0.5, 0.9]", f"run.dir={folder}"]
    assert train("f_distill/quickstart", [*words, *more]) == 0
    return folder


def test_figures_along_the_training_and_the_best_of_them(followed: Path) -> None:
    folder = followed
    check_lines(folder)
    lines = [json.loads(line) for line in (folder / "evaluations" / "along.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    values = {(line["step"], name): f["value"] for line in lines for name, f in line["figures"]["fid"].items()}
    assert len(values) == 4
    best = json.loads((folder / "best.json").read_text())
    assert (best["step"], best["average"]) == min(values, key=values.__getitem__)
    written: list[Path] = []
    again = runs.evaluate_run(folder / "best", overrides=["evaluate.metrics=[fid]"], on_written=written.append)
    assert again["figures"]["fid"]["value"] == best["figures"]["fid"]["value"] == min(values.values())
    assert again["model"] == f"ema {best['average']}, the best of the training"
    assert written[0].name == "best_metrics_fid.json"
    assert "Figures along the training" in (folder / "report.html").read_text()
    assert runs.sample_run(folder / "best", count=4)["model"].endswith("the best of the training")


def test_a_student_is_exported_and_read_back_in_a_few_lines(place: Path, finished: Path) -> None:
    folder = place / "exported"
    assert main(["export", str(finished), "--to", str(folder), "--weights", "ema"]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert (config["network"], config["method"]["teacher"], config["method"]["teacher_config"]) == (
        "student",
        None,
        None,
    )
    model = load_exported(folder)
    run = runs.open_run(finished)
    nets, _ = run.networks("ema")
    wanted = run.method.sampler(nets)({"sample_id": torch.arange(5)}, Streams(3).within("samples"))
    torch.testing.assert_close(model.sample(5, seed=3), wanted)
    card = (folder / "README.md").read_text()
    assert "load_exported" in card
    assert "network calls each: 1\n" in card


def test_an_exported_student_draws_what_its_run_draws(place: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    assert main(["export", str(finished), "--to", str(folder), "--weights", "ema"]) == 0
    asked: dict[str, Any] = {"label": [5, 8], "count": 6, "seed": 2}
    of_run = runs.sample_run(finished, overrides=["sample.weights=ema", "sample.neighbours=0"], **asked)
    drawn = runs.sample_run(folder, out=tmp_path / "pictures", **asked)
    for item in (drawn["items"][0]["file"], drawn["items"][0]["file"].replace("class_5_8", "0001_class_8")):
        assert (tmp_path / "pictures" / item).read_bytes() == (Path(of_run["folder"]) / item).read_bytes()
    assert str(tmp_path / "pictures") in runs.samples_shown(folder, drawn)[0]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    with pytest.raises(GenerativeError, match=r"--label 12[\s\S]*0 \.\. 9"):
        runs.sample_run(folder, label=[12])
    with pytest.raises(GenerativeError, match="makes images"):
        runs.sample_run(folder, prompt="a three")
    with pytest.raises(GenerativeError, match="--out"):
        runs.sample_run(finished, out=tmp_path)


def test_an_export_that_draws_nothing_tells_what_would(finished: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, student = tmp_path / "heads", tmp_path / "student"
    assert (
        main(["export", str(finished), "--to", str(folder), "--network", "discriminator", "--weights", "trained"]) == 0
    )
    assert main(["export", str(finished), "--to", str(student)]) == 0
    with pytest.raises(GenerativeError, match=r"holds the network discriminator[\s\S]*the network student"):
        runs.sample_run(folder, count=2)
    with pytest.raises(GenerativeError, match=r"holds the network discriminator[\s\S]*--network student"):
        load_exported(folder).sample(2)
    with pytest.raises(GenerativeError, match=r"--tokenizer nonsense[\s\S]*a model of images"):
        runs.sample_run(student, count=2, tokenizer="nonsense")
    with pytest.raises(GenerativeError, match=r"sample\.weights=trained"):
        runs.sample_run(student, count=2, overrides=["sample.weights=trained"])
    assert not (tmp_path / "samples").exists()


def test_the_card_of_a_student_of_several_steps_tells_its_calls() -> None:
    config = load_run_config("f_distill/cifar10", ["method.steps.levels=[10, 1, 0.2]"])
    subject: Any = SimpleNamespace(
        config=config, method=FDistill, network="student", facts=DataFacts(sample_shape=(3, 32, 32))
    )
    assert "network calls each: 4" in _usage(subject, "generative", None, "student")[1]


def test_the_best_weights_are_exported(place: Path, followed: Path) -> None:
    assert main(["export", str(followed / "best"), "--to", str(place / "best-model")]) == 0
    config = json.loads((place / "best-model" / "config.json").read_text())
    best = json.loads((followed / "best.json").read_text())
    assert (config["step"], config["weights"]) == (best["step"], f"{best['model']}, the best of the training")
    averaged = checkpoint_weights(open_checkpoint(followed / "best"), "student")
    torch.testing.assert_close(load_exported(place / "best-model").networks["student"].state_dict(), averaged)


def test_the_actor_finds_what_the_trainer_found(
    followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.nice", lambda by: by)
    there = tmp_path / "run"
    shutil.copytree(followed, there, ignore=shutil.ignore_patterns("evaluations", "best", "best.json"))
    Following(os.getcwd(), 1).follow(str(there))
    told = [[json.loads(line)["figures"] for line in (folder / "evaluations" / "along.jsonl").read_text().splitlines()]
            for folder in (followed, there)]  # fmt: skip
    assert told[0] == told[1]
    assert Judge(there).due() == []


def test_a_checkpoint_that_went_is_left_out(followed: Path, tmp_path: Path) -> None:
    there = tmp_path / "run"
    shutil.copytree(followed, there, ignore=shutil.ignore_patterns("evaluations", "step_000002"))
    judge = Judge(there)
    judge.measure(2)
    assert judge.gone == {2}
    assert judge.due() == [4]


@pytest.mark.parametrize("change", ["train.checkpoint.every_steps=null", "train.checkpoint.every_steps=3"])
def test_figures_along_the_training_need_checkpoints(
    words: list[str], finished: Path, tmp_path: Path, change: str
) -> None:
    with pytest.raises(GenerativeError, match="multiple of the steps between checkpoints"):
        train("f_distill/quickstart", [*words, "evaluate.every_steps=2", change, f"run.dir={tmp_path / 'run'}"])
