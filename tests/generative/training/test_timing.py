from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from generative.method import Alone
from generative.training.throughput import Pace
from generative.training.timing import StepClock


class Time:
    """A clock that stands still unless told to go."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Batches:
    """Each takes 2 s; knows its cursor."""

    def __init__(self, time):
        self.time, self.closed = time, False

    def __next__(self):
        self.time.now += 2
        return "batch"

    def state(self, collectives):
        return {"samples": 7}

    def close(self):
        self.closed = True


class Slow(Alone):
    """Two workers; a sum takes 3 s."""

    world = 2

    def __init__(self, time):
        self.time = time

    def sum(self, tensor):
        self.time.now += 3
        return 2 * tensor


@pytest.fixture
def parts():
    """(clock of the time, the watch, batches and sums of a trainer that it watches)."""
    time = Time()
    watch = StepClock(time)
    backend = SimpleNamespace(device=torch.device("cpu"), world=2, collectives=Slow(time))
    trainer = SimpleNamespace(batches=Batches(time), backend=backend)
    watch.attach(trainer)
    return time, watch, trainer


def test_each_second_goes_to_one_part(parts):
    time, watch, trainer = parts
    for _ in range(2):
        assert next(trainer.batches) == "batch"
        time.now += 10  # forward and backward
        assert trainer.backend.collectives.sum(torch.ones(1)) == 2
        watch.step_ended()
        time.now += 5  # validation
        trainer.backend.collectives.sum(torch.ones(1))  # of the validation: lies between steps
    next(trainer.batches)
    assert watch.take(2 + 10 + 3 + 5 + 3 + 2 + 10 + 3 + 5 + 3 + 2) == {
        "data": 6,
        "sync": 6,
        "between": 16,
        "compute": 20,
    }
    assert watch.take(1.0) == {"data": 0, "sync": 0, "between": 0, "compute": 1}


def test_the_parts_are_never_more_than_the_whole(parts):
    _, watch, trainer = parts
    next(trainer.batches)
    assert watch.take(0.5) == {"data": 0.5, "sync": 0, "between": 0, "compute": 0}


def test_a_run_that_goes_back_begins_anew(parts):
    time, watch, trainer = parts
    next(trainer.batches)
    watch.step_ended()
    time.now += 50
    watch.restart()
    next(trainer.batches)
    assert watch.take(2.0)["data"] == 2


def test_the_batches_stay_what_they_are(parts):
    _, _, trainer = parts
    assert trainer.batches.state(Alone()) == {"samples": 7}
    batches = trainer.batches
    batches.close()
    assert batches.closed
    assert (trainer.backend.collectives.rank, trainer.backend.collectives.world) == (0, 2)


def test_sums_on_a_gpu_are_not_timed():
    time = Time()
    watch = StepClock(time)
    backend = SimpleNamespace(device=torch.device("cuda"), world=2, collectives=Slow(time))
    trainer = SimpleNamespace(batches=Batches(time), backend=backend)
    watch.attach(trainer)
    trainer.backend.collectives.sum(torch.ones(1))
    assert watch.take(3.0) == {"data": 0, "sync": None, "between": 0, "compute": 3}


def test_pace_forgets_the_first_record_and_then_the_oldest():
    pace = Pace(window=3)
    assert pace.samples_per_second is None
    assert pace.seconds_for(10) is None
    pace.add(10, 100.0)
    assert pace.samples_per_second == pytest.approx(0.1)
    for seconds in (1.0, 2.0, 2.0):
        pace.add(10, seconds)
    assert pace.samples_per_second == pytest.approx(6.0)
    pace.add(10, 4.0)
    assert pace.samples_per_second == pytest.approx(30 / 8)
    assert pace.seconds_for(30) == pytest.approx(8.0)
    assert pace.seconds_for(0) == 0
