from __future__ import annotations

import io
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from generative.training.runfolder import append_line
from launch.console import PLAIN_SECONDS, SLOWEST_SECONDS, Console, Follower


class Run:
    """A run folder that a test fills, and what the follower shows of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.now = folder, io.StringIO(), 0.0
        self.follower = Follower(folder, "runs/x", Console(self.out), clock=lambda: self.now)

    def event(self, kind: str, step: int, message: str) -> None:
        append_line(self.folder / "events.jsonl", {"time": time.time(), "kind": kind, "step": step, "message": message})

    def train(self, step: int, loss: float) -> None:
        append_line(self.folder / "metrics.jsonl", {"kind": "train", "step": step, "loss": {"denoise": loss}})

    def status(self, **fields: Any) -> None:
        (self.folder / "status.json").write_text(json.dumps({"steps": 400} | fields))

    def lines(self) -> list[str]:
        self.follower.poll()
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return text.splitlines()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_progress_comes_every_few_seconds_not_every_step(run: Run) -> None:
    run.event("start", 0, "400 steps")
    run.status(step=0, tokens_per_second=41_000, eta_seconds=42, checkpoint="step_000100")
    run.train(1, 5.0)
    assert run.lines() == ["train   step 1/400 · loss 5 · 41k tok/s · ETA 0:42 · saved runs/x/checkpoints/step_000100"]
    for step in range(2, 100):
        run.train(step, 4.0)
        assert run.lines() == []
    run.now += PLAIN_SECONDS
    assert run.lines()[0].startswith("train   step 99/400 · loss 4 ")


@pytest.mark.parametrize("state", ["evaluating", "complete", "closed"])
def test_the_last_step_is_shown_once_as_it_ended(run: Run, state: str) -> None:
    run.event("start", 0, "")
    run.status(step=399, state="running", eta_seconds=2, checkpoint="step_000300")
    run.lines()
    run.train(400, 2.31)
    run.now += 100
    assert run.lines() == []
    run.status(step=400, state="running" if state == "closed" else state, eta_seconds=2, checkpoint="step_000400")
    if state == "closed":
        run.follower.close()
    last = "train   step 400/400 · loss 2.31 · ETA 0:00 · saved runs/x/checkpoints/step_000400"
    assert [line for line in run.lines() if line.startswith("train")] == [last]
    run.follower.close()
    assert run.lines() == []


def test_an_interrupted_run_ends_with_its_step_and_no_time_left(run: Run) -> None:
    run.event("start", 0, "")
    run.status(step=10, state="running", eta_seconds=40)
    run.lines()
    run.train(31, 3.5)
    run.status(step=31, state="interrupted", eta_seconds=0.0, checkpoint="step_000031")
    assert run.lines() == ["train   step 31/400 · loss 3.5 · saved runs/x/checkpoints/step_000031"]


@pytest.mark.parametrize("hours", [0.01, 0.5, 4])
def test_a_long_run_prints_few_lines(run: Run, hours: float) -> None:
    run.event("start", 0, "")
    times = []
    for step in range(1, 2000):
        run.now = 3600 * hours * step / 2000
        run.status(step=step, steps=2000, state="running")
        times += [run.now] * len(run.lines())
    gaps = [after - before for before, after in pairwise(times)]
    assert times[0] <= 3600 * hours / 1000
    assert min(gaps) >= PLAIN_SECONDS
    assert max(gaps) <= SLOWEST_SECONDS + 3600 * hours / 1000
    assert len(times) < 3600 * hours / PLAIN_SECONDS + 1
    assert len(times) < 250


def test_evaluation_is_told_once_and_ends_the_progress(run: Run) -> None:
    run.event("start", 0, "")
    run.status(step=400, state="evaluating")
    assert run.lines() == ["train   step 400/400 · ETA 0:00", "evaluate measuring, drawing samples"]
    run.follower.close()
    assert run.lines() == []


def test_what_matters_is_told_what_does_not_is_not(run: Run) -> None:
    run.event("checkpoint", 100, "written")
    run.event("restart", 120, "1 of 3: worker 1 died")
    run.event("resume", 100, "goes on from step 100 of 400")
    run.event("anomaly", 130, "loss is nan")
    assert run.lines() == [
        "restart 1 of 3: worker 1 died",
        "resume  goes on from step 100 of 400",
        "anomaly loss is nan",
    ]


def test_events_of_earlier_starts_are_old_news(tmp_path: Path) -> None:
    Run(tmp_path).event("restart", 1, "long ago")
    later = Run(tmp_path)
    later.event("warning", 2, "now")
    assert later.lines() == ["warning now"]


def test_held_out_loss_comes_with_its_error_in_the_next_line_only(run: Run) -> None:
    run.event("start", 0, "")
    loss = {"denoise": {"value": 2.4567, "stderr": 0.0213, "n": 64}}
    append_line(run.folder / "metrics.jsonl", {"kind": "validation", "step": 50, "loss": loss})
    run.status(step=52)
    assert run.lines() == ["train   step 52/400 · held-out 2.46 ± 0.02 (step 50, n=64)"]
    run.now += PLAIN_SECONDS
    run.status(step=60)
    assert run.lines() == ["train   step 60/400"]


def test_a_held_out_loss_without_an_error_says_so(run: Run) -> None:
    run.event("start", 0, "")
    loss = {"denoise": {"value": 2.5, "stderr": None, "n": 1}}
    append_line(run.folder / "metrics.jsonl", {"kind": "validation", "step": 50, "loss": loss})
    run.status(step=52)
    assert run.lines() == ["train   step 52/400 · held-out 2.5 (no error known) (step 50, n=1)"]


def test_a_log_cut_back_by_a_resume_is_read_on(run: Run) -> None:
    run.event("start", 0, "")
    run.status(step=0)
    for step in (1, 2, 3):
        run.train(step, 1.0)
    run.lines()
    (run.folder / "metrics.jsonl").write_text("")
    run.lines()
    run.train(2, 9.0)
    run.now += PLAIN_SECONDS
    assert run.lines()[0].startswith("train   step 2/400 · loss 9")


def test_a_line_being_written_waits_for_its_end(run: Run) -> None:
    with open(run.folder / "events.jsonl", "w") as file:
        file.write('{"kind": "warning", "mess')
        file.flush()
        assert run.lines() == []
        file.write('age": "whole"}\n')
    assert run.lines() == ["warning whole"]
