from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.training.runfolder import append_line
from launch.console import Console, Follower
from launch.formats import ago, duration, short


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
    run.now += 6
    assert run.lines()[0].startswith("train   step 99/400 · loss 4 ")


def test_the_last_step_is_always_shown_and_once(run: Run) -> None:
    run.event("start", 0, "")
    run.status(step=1)
    run.lines()
    run.train(400, 2.31)
    assert [line[:22] for line in run.lines()] == ["train   step 400/400 ·"]
    run.follower.close()
    assert run.lines() == []


def test_evaluation_is_told_once_and_ends_the_progress(run: Run) -> None:
    run.event("start", 0, "")
    run.status(step=400, state="evaluating")
    assert run.lines() == ["train   step 400/400", "evaluate measuring on held-out data, drawing samples"]
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


def test_held_out_loss_comes_with_its_error(run: Run) -> None:
    loss = {"denoise": {"value": 2.4567, "stderr": 0.0213, "n": 64}}
    append_line(run.folder / "metrics.jsonl", {"kind": "validation", "step": 50, "loss": loss})
    assert run.lines() == ["held-out step 50 · loss 2.457 ± 0.021 (n=64)"]


def test_a_log_cut_back_by_a_resume_is_read_on(run: Run) -> None:
    run.event("start", 0, "")
    run.status(step=0)
    for step in (1, 2, 3):
        run.train(step, 1.0)
    run.lines()
    (run.folder / "metrics.jsonl").write_text("")
    run.lines()
    run.train(2, 9.0)
    run.now += 6
    assert run.lines()[0].startswith("train   step 2/400 · loss 9")


def test_a_line_being_written_waits_for_its_end(run: Run) -> None:
    with open(run.folder / "events.jsonl", "w") as file:
        file.write('{"kind": "warning", "mess')
        file.flush()
        assert run.lines() == []
        file.write('age": "whole"}\n')
    assert run.lines() == ["warning whole"]


@pytest.mark.parametrize(
    ("value", "text"), [(41_234, "41.2k"), (1.21e6, "1.21M"), (999.7, "1k"), (999_960, "1M"), (0.5, "0.5"), (12, "12")]
)
def test_short(value: float, text: str) -> None:
    assert short(value) == text


@given(st.floats(1e-3, 1e12))
def test_short_is_right_to_three_digits(value: float) -> None:
    text = short(value)
    factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)
    assert float(text.rstrip("kMG")) * factor == pytest.approx(value, rel=0.0051)
    assert "e+" not in text or value >= 9.99e11


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (42.4, "0:42"), (3599.6, "1:00:00"), (5025, "1:23:45"), (97_000, "27 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (400, "7 min"), (36_000, "10 h"), (864_000, "10.0 d")])
def test_ago(seconds: float, text: str) -> None:
    assert ago(seconds) == text
