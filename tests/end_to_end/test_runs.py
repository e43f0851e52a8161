"""Whole runs through the command line: two Ray workers, and every way to kill them."""

from __future__ import annotations

import os
import signal
import time

import pytest

from generative.training.checkpoint.rotation import complete_steps
from tests.end_to_end.runs import Run, write_text
from tests.support.leftovers import wait_until_gone
from tests.support.schema import check_lines, check_status

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

LOCAL = ("launch.backend=local", "launch.workers=1")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_text(folder)
    return folder


# Half a core each: a worker that is frozen keeps its own, while its successor starts.
STORMY = ("parallel.timeout_seconds=12", "launch.cpus_per_worker=0.5")


@pytest.fixture(scope="module")
def chaos(texts, tmp_path_factory):
    """`generative chaos`, which trains twice: without faults, and with a killed and a frozen worker."""
    run = Run(texts, tmp_path_factory.mktemp("chaos") / "run")
    process = run.start(*STORMY, "--kill", "worker@15,hang@45", verb="chaos")
    run.output = run.end(process, timeout=550)
    return run


@pytest.fixture(scope="module")
def straight(texts, chaos):
    """The uninterrupted run with two Ray workers: `generative train` as a process of its own, started by chaos."""
    run = Run(texts, chaos.folder / "chaos" / "calm")
    run.output = (chaos.folder / "chaos" / "calm.log").read_text()
    return run


@pytest.fixture
def run(texts, tmp_path):
    return Run(texts, tmp_path / "run")


def test_one_command_leaves_a_whole_run(straight):
    assert straight.read("status.json")["state"] == "complete"
    assert straight.read("evaluation.json")["figures"]["elbo"]["stderr"] > 0
    assert {"config.yaml", "environment.json", "metrics.jsonl", "events.jsonl", "report.html"} <= {
        path.name for path in straight.folder.iterdir()
    }
    losses = straight.losses()
    assert len(losses) == 120
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    kinds = {item["kind"] for path in (straight.folder / "samples").iterdir() for item in straight.read(path)["items"]}
    assert kinds == {"sample", "infill"}
    for word in ("plan", "train", "evaluate", "sample", "report"):
        assert f"\n{word}" in f"\n{straight.output}"
    again = straight.finish(*STORMY)
    assert "complete" in again
    assert straight.losses() == losses


def test_every_line_is_as_the_schema_says(straight):
    metrics, events = check_lines(straight.folder)
    assert metrics == 120 + 3
    assert events >= 12
    assert check_status(straight.folder).world == 2
    for line in straight.lines("metrics.jsonl"):
        assert line["kind"] == "validation" or sum(line["split"].values()) == pytest.approx(line["seconds"])


def test_one_process_gives_the_same_curve(straight, run):
    run.finish(*LOCAL, "train.micro_batch_size=5")
    assert run.losses() == pytest.approx(straight.losses(), rel=1e-5)


def test_a_run_survives_a_killed_worker_and_a_frozen_one(texts, chaos):
    assert "2 of 2 faults survived" in chaos.output
    assert "curves equal bit for bit: 120 steps, 3 validations" in chaos.output
    table = chaos.read("chaos/chaos.json")
    assert table["equal"]
    assert [damage["kind"] for damage in table["damages"]] == ["worker", "hang"]
    stormy = Run(texts, chaos.folder / "chaos" / "stormy")
    kinds = [event["kind"] for event in stormy.lines("events.jsonl")]
    assert (kinds.count("restart"), kinds.count("resume")) == (2, 2)
    assert check_status(stormy.folder).restarts == 2
    check_lines(stormy.folder)


def workers_of(run, count):
    """Process ids of the newest workers, of which there are so many."""
    lines = run.lines("logs/workers.jsonl")
    found = {line["pid"] for line in lines if line["driver"] == lines[-1]["driver"]}
    assert len(found) == count
    return found


def test_killed_while_a_checkpoint_is_written(texts, tmp_path):
    bigger = (*LOCAL, "method.network.width=512", "method.network.layers=3", "train.steps=20", "train.batch_size=2")
    checkpoints = "train.checkpoint.every_steps=4"
    reference = Run(texts, tmp_path / "reference")
    reference.finish(*bigger, checkpoints)
    run = Run(texts, tmp_path / "run")
    process = run.start(*bigger, checkpoints)

    def writing():
        return any(run.folder.glob("checkpoints/step_000008.tmp-*/*"))

    run.wait_for(writing, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (run.folder / "checkpoints/step_000004/index.json").exists()
    assert not (run.folder / "checkpoints/step_000008").exists()
    run.finish(*bigger, checkpoints)
    assert run.curve() == reference.curve()
    resumed = [event for event in run.lines("events.jsonl") if event["kind"] == "resume"]
    assert [event["step"] for event in resumed] == [4]


def test_interrupt_saves_more_workers_go_on_and_after_the_commands_death_one_does(straight, run):
    """The same curve by two workers, three, and one."""
    process = run.start()
    run.wait_for(lambda: run.step() >= 1, process)
    # A run of a second or two: one worker, and so the other, waits, lest it be over before it hears.
    worker = min(workers_of(run, 2))
    os.kill(worker, signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGTERM)  # as `timeout` sends it, to all (a terminal sends SIGINT so)
    run.wait_for((run.folder / "stop").exists, process)
    os.kill(worker, signal.SIGCONT)
    output = run.end(process, code=75)
    assert "again" in output
    assert output.splitlines()[-1].startswith("stop    interrupted at step ")
    assert run.read("status.json")["state"] == "interrupted"
    wait_until_gone(workers_of(run, 2), "workers outlived an interrupted command", seconds=30)
    stopped_at = run.step()
    assert stopped_at < 120
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    # Half a core each: three workers on a machine of two cores.
    process = run.start("launch.workers=3", "launch.cpus_per_worker=0.5")
    run.wait_for(lambda: any(step > stopped_at for step in complete_steps(run.folder / "checkpoints")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run.step() < 120
    wait_until_gone(workers_of(run, 3), "workers outlived a killed command", seconds=60)
    run.finish(*LOCAL)
    resumed = [event["step"] for event in run.lines("events.jsonl") if event["kind"] == "resume"]
    assert resumed[0] == stopped_at < resumed[1]
    assert run.losses() == pytest.approx(straight.losses(), rel=1e-5)
    assert [line["samples"] for line in run.lines("metrics.jsonl") if line["kind"] == "train"] == [
        12 * (i + 1) for i in range(120)
    ]


def test_damaged_newest_checkpoint_is_passed_over(texts, tmp_path):
    reference = Run(texts, tmp_path / "reference")
    reference.finish(*LOCAL, "train.steps=40")
    run = Run(texts, tmp_path / "run")
    process = run.start(*LOCAL, "train.steps=40")
    run.wait_for(lambda: (run.folder / "checkpoints/step_000020/index.json").exists(), process)
    run.wait_for(lambda: run.step() >= 25, process)
    process.send_signal(signal.SIGTERM)
    run.end(process, code=75)
    newest = max(run.folder.glob("checkpoints/step_*[0-9]"))
    victim = next(newest.glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-5] ^= 0xFF
    victim.write_bytes(data)
    run.finish(*LOCAL, "train.steps=40")
    assert run.curve() == reference.curve()
    assert any(newest.name in event["message"] for event in run.lines("events.jsonl") if event["kind"] == "warning")


def test_two_trainers_on_one_run_folder(run):
    process = run.start(*LOCAL, "train.steps=100000")
    run.wait_for(lambda: run.step() >= 2, process)
    started = time.monotonic()
    output = run.finish(*LOCAL, "train.steps=100000", code=3)
    assert time.monotonic() - started < 60
    assert str(process.pid) in output
    process.send_signal(signal.SIGINT)
    run.end(process, code=75)


def test_full_disk_stops_the_run_cleanly(texts, tmp_path):
    """A file system of 6 MB: the first checkpoint does not fit."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=6m tmpfs {mount} 2>/dev/null"):
        pytest.skip("no right to mount a small file system")
    try:
        run = Run(texts, mount / "run")
        wide = ("method.network.width=256", "method.network.ff_width=1024", "method.network.layers=2")
        output = run.finish(*LOCAL, *wide, "train.steps=30", code=3)
        assert "space" in output
        assert "expected" in output
        assert not list(run.folder.glob("checkpoints/step_*[0-9]"))
        assert not list(run.folder.glob("checkpoints/*.tmp-*/*.safetensors"))
    finally:
        os.system(f"umount -l {mount}")
