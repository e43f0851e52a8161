"""What a run has reached outlives the errors that end it, and a resume goes on as if nothing had been."""

from __future__ import annotations

import errno
import os
import time

import pytest

from generative.errors import CheckpointError
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore, writer
from generative.training.config import TrainConfig
from generative.training.hooks import Hook
from generative.training.trainer import Trainer
from tests.support.toys import Regression, loaders


class Watch(Hook):
    """Keeps the records, tells validation losses by step, and fails after a step."""

    def __init__(self, losses=None, fail_after=None):
        self.records, self.losses, self.fail_after = [], losses or {}, fail_after

    def on_step(self, trainer, record):
        if record is not None:
            self.records.append(record)
        if trainer.step in self.losses:
            trainer.validated(self.losses[trainer.step])
        if trainer.step == self.fail_after:
            raise RuntimeError("a fault of a hook")


def train(folder, hook, stop_at=None, **settings):
    config = TrainConfig.model_validate(
        {"steps": 9, "batch_size": 6, "optimizer": {"lr": 0.05}, "checkpoint": {"every_steps": None}} | settings
    )
    store = CheckpointStore(folder, keep_last=1)
    trainer = Trainer(Regression(), config, 9, loaders(), Backend(), store, [hook])
    trainer._stop = lambda: trainer.step == stop_at
    trainer.train()
    return store


def test_a_save_under_way_is_finished_when_a_hook_fails(tmp_path, monkeypatch):
    write = writer.write_part

    def slowly(*arguments):
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(writer, "write_part", slowly)
    with pytest.raises(RuntimeError, match="a fault of a hook"):
        train(tmp_path, Watch(fail_after=4), checkpoint={"every_steps": 3})
    assert CheckpointStore(tmp_path).complete_steps() == [3]


def test_the_best_checkpoint_outlives_a_better_one_that_could_not_be_saved(tmp_path, monkeypatch):
    class FullDisk(Watch):
        def on_step(self, trainer, record):
            if trainer.step == 4:
                trainer.store.wait()
                monkeypatch.setattr(os, "write", full)
            super().on_step(trainer, record)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="no room"):
        train(tmp_path, FullDisk({2: 0.5, 4: 0.4}))
    monkeypatch.undo()
    assert CheckpointStore(tmp_path).protected == {"best": 2}
    store = train(tmp_path, Watch({6: 0.6}), checkpoint={"every_steps": 1})  # rotates again and again
    assert store.complete_steps() == [2, 9]
    assert store.newest().meta["best"] == {"step": 2, "loss": 0.5}


def test_the_first_line_after_a_resume_counts_the_steps_before_it(tmp_path):
    straight, before, after = Watch(), Watch(), Watch()
    train(tmp_path / "straight", straight, log_every=3)
    train(tmp_path / "run", before, stop_at=5, log_every=3)
    train(tmp_path / "run", after, log_every=3)
    keys = ("step", "loss", "grad_norm", "metrics", "samples", "lr")
    joined = [{key: record[key] for key in keys} for record in before.records + after.records]
    assert joined == [{key: record[key] for key in keys} for record in straight.records]
    assert [record["step"] for record in joined] == [3, 6, 9]
