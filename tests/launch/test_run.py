from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import fake_task
import pytest

from generative.errors import ConfigError, DataError, ResourceError, RunFolderError
from generative.training.runfolder import read_lines
from generative.training.runlock import RunLock
from launch.console import Console
from launch.run import RecordedError, Task, train
from launch.runs import read_config
from launch.sections import LaunchConfig

QUICKSTART = "masked_diffusion/quickstart"


class Driver:
    """`generative train` in this process with the fake task."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.task, self.out = folder, fake_task.TASK, io.StringIO()

    def __call__(self, *overrides: str, steps: int = 3) -> int:
        self.out = io.StringIO()
        words = [f"run.dir={self.folder}", "launch.backend=local", f"train.steps={steps}", *overrides]
        return train(QUICKSTART, words, self.task, Console(self.out))

    @property
    def shown(self) -> str:
        return self.out.getvalue()

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path / "run")


def test_a_run_from_plan_to_report(driver: Driver) -> None:
    assert driver() == 0
    lines = driver.shown.splitlines()
    assert lines[0].startswith(f"plan    {QUICKSTART} · 1.3 M parameters · 1 worker · 9.4e12 FLOP")
    assert any(line.startswith("train   step 3/3 · loss") for line in lines)
    assert lines[-1] == f"report  {driver.folder}/report.html"
    environment = driver.json("environment.json")
    assert {"versions", "git", "host", "cores", "command"} <= environment.keys()
    assert driver.json("status.json")["state"] == "complete"


def test_the_stored_configuration_gives_the_same_run(driver: Driver, tmp_path: Path) -> None:
    driver()
    stored = str(driver.folder / "config.yaml")
    assert train(stored, [], driver.task, Console(out := io.StringIO())) == 0
    assert "is complete already" in out.getvalue()


def test_a_complete_run_is_not_run_again(driver: Driver) -> None:
    driver()
    before = read_lines(driver.folder / "pids.jsonl")
    assert driver("evaluate.windows=5") == 0
    assert driver.shown.splitlines() == [
        f"done    {QUICKSTART} is complete already · report {driver.folder}/report.html"
    ]
    assert read_lines(driver.folder / "pids.jsonl") == before


def test_other_ranks_of_a_complete_run_wait_for_nobody(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 leaves at once, so a rank that took up its work would wait for it until the time-out."""
    driver()
    before = read_lines(driver.folder / "pids.jsonl")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert driver("launch.workers=2") == 0
    assert read_lines(driver.folder / "pids.jsonl") == before


def test_another_configuration_is_refused_with_both_values(driver: Driver) -> None:
    driver()
    with pytest.raises(RunFolderError) as refused:
        driver("train.seed=5", "launch.workers=1", steps=4)
    text = str(refused.value)
    assert "train.steps (3 there, 4 now)" in text
    assert "train.seed (0 there, 5 now)" in text
    assert "launch.workers" not in text
    assert driver.json("status.json")["state"] == "complete"


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("train.micro_batch_size=4", "train.micro_batch_size null -> 4"),
        ("train.checkpoint.keep_last=7", "train.checkpoint.keep_last 2 -> 7"),
        ("launch.workers=3", "launch.workers 2 -> 3"),
        ("parallel.timeout_seconds=11", "parallel.timeout_seconds 300 -> 11"),
        ("method.sampling.steps=4", "method.sampling.steps 64 -> 4"),
    ],
)
def test_operational_changes_are_taken_with_a_note(driver: Driver, override: str, note: str) -> None:
    (driver.folder).mkdir()
    (driver.folder / "stop").touch()
    driver.task = Task(_stop_first, fake_task.work, fake_task.report)
    assert driver() == 75
    driver.task = fake_task.TASK
    assert driver(override) == 0
    assert f"note    changed since the last start: {note}" in driver.shown


def _stop_first(config: Any, run_dir: Path, progress: Any) -> Any:
    (run_dir / "stop").touch()
    return fake_task.prepare(config, run_dir, progress)


def test_the_run_folder_may_be_at_home(driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert driver("run.dir=~/mine") == 0
    assert (tmp_path / "home" / "mine" / "status.json").is_file()


def test_a_stale_stop_request_does_not_stop_the_next_start(driver: Driver) -> None:
    driver.folder.mkdir()
    (driver.folder / "stop").touch()
    assert driver() == 0


def test_interrupted_and_given_again(driver: Driver) -> None:
    def stop_soon() -> None:
        while not (driver.folder / "metrics.jsonl").exists():
            time.sleep(0.02)
        (driver.folder / "stop").touch()

    helper = threading.Thread(target=stop_soon, daemon=True)
    helper.start()
    assert driver(steps=30) == 75
    helper.join(timeout=10)
    assert "give the same command again" in driver.shown
    stopped = driver.json("status.json")["step"]
    assert 0 < stopped < 30
    assert driver(steps=30) == 0
    assert f"resume  goes on from step {stopped} of 30" in driver.shown
    assert [line["step"] for line in read_lines(driver.folder / "metrics.jsonl")] == list(range(1, 31))


def test_two_trainers_on_one_folder(driver: Driver) -> None:
    with RunLock(driver.folder, "driver").acquire(), pytest.raises(RunFolderError, match="in use by another trainer"):
        driver()
    assert driver() == 0


def test_a_folder_that_cannot_be_made(driver: Driver) -> None:
    driver.folder.write_text("a file is in the way")
    with pytest.raises(RunFolderError):
        driver()


def test_an_error_before_training_leaves_a_failed_run_that_can_be_mended(driver: Driver) -> None:
    def prepare(config: Any, run_dir: Path, progress: Any) -> Any:
        raise DataError("the corpus is empty", "text", "give some")

    driver.task = Task(prepare, fake_task.work, fake_task.report)
    with pytest.raises(DataError, match="the corpus is empty"):
        driver()
    assert driver.json("status.json")["state"] == "failed"
    driver.task = fake_task.TASK
    assert driver() == 0


def test_a_fault_of_the_program_leaves_a_failed_run(driver: Driver) -> None:
    def prepare(config: Any, run_dir: Path, progress: Any) -> Any:
        raise ZeroDivisionError("nobody thought of this")

    driver.task = Task(prepare, fake_task.work, fake_task.report)
    with pytest.raises(ZeroDivisionError):
        driver()
    status = driver.json("status.json")
    assert (status["state"], status["message"]) == ("failed", "unexpected ZeroDivisionError: nobody thought of this")
    driver.task = fake_task.TASK
    assert driver() == 0


def test_a_report_that_fails_does_not_undo_a_complete_run(driver: Driver) -> None:
    def report(run_dir: Path) -> None:
        raise ZeroDivisionError

    driver.task = Task(fake_task.prepare, fake_task.work, report)
    with pytest.raises(ZeroDivisionError):
        driver()
    assert driver.json("status.json")["state"] == "complete"


@pytest.mark.parametrize("old", [False, True])
def test_a_report_that_was_not_made_is_made_by_the_same_command(driver: Driver, old: bool) -> None:
    """The command was killed between the workers' end and its report; an interrupted start may have left another."""
    driver()
    before, report = read_lines(driver.folder / "pids.jsonl"), driver.folder / "report.html"
    report.unlink()
    if old:
        report.write_text("of a start that was interrupted")
        os.utime(report, (1e9, 1e9))
    assert driver() == 0
    assert report.read_text() == "fake"
    assert driver.shown.splitlines()[-1] == f"report  {report}"
    assert read_lines(driver.folder / "pids.jsonl") == before
    assert driver() == 0
    assert "is complete already" in driver.shown


def test_earlier_environments_are_kept(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(version: str) -> None:
        described = {"time": time.time(), "versions": {"torch": version}}
        monkeypatch.setattr("launch.environment.describe", lambda: described)
        driver.task = Task(_stop_first, fake_task.work, fake_task.report)
        assert driver() == 75

    for version in ("1", "1", "2", "3"):
        start(version)
    kept = [line["versions"]["torch"] for line in read_lines(driver.folder / "environments.jsonl")]
    assert (kept, driver.json("environment.json")["versions"]["torch"]) == (["1", "2"], "3")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "method: {name: unheard_of}", "\x00", "train: {new_key: 1}"])
def test_a_damaged_or_foreign_configuration_is_told(driver: Driver, text: str) -> None:
    driver()
    (driver.folder / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match=r"config\.yaml: cannot be read by this version"):
        driver()
    with pytest.raises(RunFolderError, match=r"config\.yaml: cannot be read by this version"):
        read_config(driver.folder)


def test_an_error_of_the_workers_comes_with_its_exit_code(driver: Driver) -> None:
    recorded = {
        "state": "failed",
        "problem": "loss is nan",
        "expected": "a number",
        "remedy": "lower lr",
        "exit_code": 4,
    }

    def work(config: Any, run_dir: Path, *, rank: int, world: int, attempt: int) -> None:
        (run_dir / "outcome.json").write_text(json.dumps(recorded))

    driver.task = Task(fake_task.prepare, work, fake_task.report)
    with pytest.raises(RecordedError) as failed:
        driver()
    assert failed.value.exit_code == 4
    assert str(failed.value) == "loss is nan\nexpected: a number\nto fix: lower lr"


def test_ctrl_c_while_preparing_leaves_with_the_code_for_again(driver: Driver) -> None:
    def prepare(config: Any, run_dir: Path, progress: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    handler = signal.getsignal(signal.SIGTERM)
    driver.task = Task(prepare, fake_task.work, fake_task.report)
    assert driver() == 75
    assert signal.getsignal(signal.SIGTERM) is handler
    assert driver.json("status.json")["state"] == "interrupted"


def test_states_larger_than_memory_are_refused_before_training(driver: Driver) -> None:
    def prepare(config: Any, run_dir: Path, progress: Any) -> Any:
        plan = fake_task.prepare(config, run_dir, progress)
        plan.memory_bytes = 10**18
        return plan

    driver.task = Task(prepare, fake_task.work, fake_task.report)
    with pytest.raises(ResourceError, match="1000000000"):
        driver()
    assert not (driver.folder / "pids.jsonl").exists()


def test_the_wrong_type_of_config_is_a_config_error(driver: Driver) -> None:
    with pytest.raises(ConfigError):
        driver("launch.backend=slurm")


def test_more_workers_than_cores_are_refused_at_once(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.ray_cluster.cores", lambda: 3)
    with pytest.raises(ResourceError) as refused:
        driver("launch.backend=ray", "launch.workers=2", "launch.cpus_per_worker=2")
    assert refused.value.exit_code == 3
    assert "this machine has 3 cores" in str(refused.value)
    assert "lower launch.workers to 1" in str(refused.value)


def test_a_cluster_that_does_not_answer(driver: Driver) -> None:
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at launch\.address"):
        driver("launch.backend=ray", "launch.address=127.0.0.1:1")


@pytest.mark.parametrize(
    ("nodes", "fits"),
    [
        ([{"CPU": 8.0, "GPU": 4.0}], True),
        ([{"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 2.0}], True),
        ([{"CPU": 3.0, "GPU": 4.0}, {"CPU": 5.0}], False),
        ([{"CPU": 7.0, "GPU": 4.0}], False),
        ([], False),
    ],
)
def test_workers_are_counted_node_by_node(nodes: list[dict[str, float]], fits: bool) -> None:
    from launch.placement import check_resources

    launch = LaunchConfig(workers=4, cpus_per_worker=2, gpus_per_worker=1)
    if fits:
        check_resources(launch, dict(enumerate(nodes)), "the cluster")
    else:
        with pytest.raises(ResourceError, match="the cluster has"):
            check_resources(launch, dict(enumerate(nodes)), "the cluster")
