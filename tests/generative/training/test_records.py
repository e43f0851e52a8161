"""The schema of the run folder: what runs write, and what the documentation says."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.hooks import Hook
from generative.training.monitor import MonitorHook
from generative.training.records import (
    METRICS_LINE,
    CurveBins,
    EventKind,
    EventLine,
    MonitorLine,
    Split,
    Status,
    TrainLine,
    ValidationLine,
)
from generative.training.runfolder import read_lines
from generative.training.trainer import Trainer
from generative.training.validation import ValidationHook
from launch.folder import record_event
from tests.support.schema import check_lines
from tests.support.toys import Duel, Points, Regression, loaders

DOCUMENT = Path(__file__).parents[3] / "docs" / "run_folder.md"


def train(folder, method, **changes):
    settings = TrainConfig.model_validate(
        {"steps": 8, "batch_size": 6, "validation": {"every_steps": 3, "samples": 8}, "checkpoint": {"every_steps": 2}}
        | changes
    )
    monitor = MonitorHook(folder, batch_flops=1e3, tokens_per_sample=3)
    hooks = [monitor, ValidationHook(settings.validation, Points(11))]
    store = CheckpointStore(folder / "checkpoints", on_event=monitor.event)
    Trainer(method, settings, 8, loaders(), Backend(), store, hooks).train()
    monitor.finish(state="complete")
    return [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]


@pytest.mark.parametrize("method", [Regression(), Duel(student_every=2), Regression(poison=20)])
@pytest.mark.parametrize("log_every", [1, 3])
def test_every_line_of_a_run_is_as_the_schema_says(tmp_path, method, log_every):
    train(tmp_path, method, log_every=log_every, anomaly={"policy": "skip"})
    record_event(tmp_path, "restart", "1 of 3: worker 1 died; all start again")
    metrics, events = check_lines(tmp_path)
    assert metrics == {1: 8, 3: 3}[log_every] + 3
    assert events >= 4


def test_samples_that_a_rollback_skips_count_for_no_speed(tmp_path, monkeypatch):
    paced, left = [], []
    monkeypatch.setattr("generative.training.monitor.Pace.add", lambda self, samples, seconds: paced.append(samples))
    monkeypatch.setattr("generative.training.monitor.Pace.seconds_for", lambda self, samples: left.append(samples))
    lines = train(tmp_path, Regression(poison=20), anomaly={"policy": "rollback"})
    assert [line["step"] for line in lines][-1] == 8
    assert set(paced) == {6}
    assert left[-3:] == [12, 6, 0]


class Watch(Hook):
    """Measures something every second step."""

    def on_step(self, trainer, record):
        if trainer.step % 2 == 0:
            trainer.measured({"coverage": trainer.step / 10, "to_training": math.inf})


class Notes:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.told = []

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def close(self):
        """Nothing to flush."""


def test_what_a_watcher_measures_is_a_line_and_goes_to_the_trackers(tmp_path):
    notes = Notes()
    monitor = MonitorHook(tmp_path, trackers=lambda: [notes])
    settings = TrainConfig.model_validate({"steps": 5, "batch_size": 6})
    Trainer(Regression(), settings, 5, loaders(), Backend(), None, [monitor, Watch()]).train()
    monitor.finish(state="complete")
    check_lines(tmp_path)
    lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if line["kind"] == "monitor"]
    assert [(line["step"], line["metrics"]) for line in lines] == [
        (2, {"coverage": 0.2, "to_training": None}),
        (4, {"coverage": 0.4, "to_training": None}),
    ]
    told = [(step, values) for step, values in notes.told if "monitor/coverage" in values]
    assert told == [(s, {"monitor/coverage": s / 10, "monitor/to_training": math.inf}) for s in (2, 4)]


def test_only_rank_0_writes_what_was_measured(tmp_path):
    monitor = MonitorHook(tmp_path)  # active on rank 0 only, from `on_start` on
    trainer = Trainer(Regression(), TrainConfig.model_validate({"steps": 1, "batch_size": 6}), 1, loaders(), Backend())
    trainer.hooks = [monitor]
    trainer.measured({"coverage": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_parts_of_a_step_add_up(tmp_path):
    for line in train(tmp_path, Duel()):
        assert sum(line["split"].values()) == pytest.approx(line["seconds"])
        assert all(seconds >= 0 for seconds in line["split"].values())


def test_unknown_and_wrong_fields_are_refused():
    good = {"version": 1, "kind": "validation", "step": 1, "time": 1.0, "metrics": {}}
    good["loss"] = {"fit": {"value": 1.0, "stderr": None, "n": 2}}
    METRICS_LINE.validate_python(good)
    for wrong in ({"extra": 1}, {"version": 2}, {"step": 0}, {"loss": {"fit": 1.0}}):
        with pytest.raises(ValidationError):
            METRICS_LINE.validate_python(good | wrong)


def test_the_document_names_every_field_and_kind():
    named = set(re.findall(r"`\"?(\w+)\"?`", DOCUMENT.read_text()))
    models = (TrainLine, ValidationLine, MonitorLine, EventLine, Status, CurveBins, Split)
    fields = {field for model in models for field in model.model_fields}
    assert fields | set(get_args(EventKind)) <= named
