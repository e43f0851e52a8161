"""What is told about a group of workers that failed."""

from __future__ import annotations

import pickle

import pytest

from generative.errors import ConfigError, DataError, PeerError
from generative.training.checkpoint.reader import DamagedCheckpointError
from launch import failures


class WrappedError(Exception):
    """As Ray wraps what a worker raised: with the traceback as its text."""

    def __init__(self, cause: BaseException, text: str) -> None:
        super().__init__(text)
        self._base_exc = cause


class WorkerHealthCheckFailedError(Exception):
    pass


class WorkerHealthCheckTimeoutError(Exception):
    pass


BAD = DataError("shard 3 is damaged (sha256)", "the file as it was written", "prepare it again")
TRACEBACK = "Traceback (most recent call last):\n  File ...\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WrappedError(BAD, f"{TRACEBACK}generative.errors.DataError: {BAD}"), "failed: shard 3 is damaged (sha256)"),
        (WrappedError(KeyError("x"), f"{TRACEBACK}KeyError: 'x'"), "failed: KeyError: 'x'"),
        (WorkerHealthCheckFailedError("..."), "died (killed, out of memory, or its node was lost)"),
        (WorkerHealthCheckTimeoutError("..."), "did not answer any more (stopped or frozen) and was ended"),
        (
            WrappedError(RuntimeError(), f"{TRACEBACK}RuntimeError: Timed out waiting 10000ms for recv operation"),
            "waited in vain for another worker, which is stuck or gone "
            "(RuntimeError: Timed out waiting 10000ms for recv operation)",
        ),
    ],
)
def test_a_failure_in_a_few_words(error, text):
    assert failures.describe(error) == text


def test_the_rank_that_began_it_is_named():
    peers = {0: RuntimeError("Connection closed by peer"), 2: RuntimeError("Timed out waiting 1 s")}
    assert failures.first_cause({**peers, 1: ValueError("broken")})[0] == 1
    assert failures.first_cause({**peers, 3: WorkerHealthCheckFailedError(), 1: ValueError()})[0] == 3


def test_a_users_mistake_is_found_among_the_consequences():
    found = {0: RuntimeError("Connection closed"), 1: WrappedError(PeerError("other"), ""), 2: WrappedError(BAD, "...")}
    assert failures.users_mistake(found) is BAD
    assert failures.users_mistake({0: RuntimeError()}) is None


def test_errors_travel_between_processes_whole():
    error = ConfigError("a", "b", "c").on_all_ranks()
    error.remedy += " d"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.agreed) == (ConfigError, "a\nexpected: b\nto fix: c d", True)
    damaged = DamagedCheckpointError("step_1", "a byte is wrong")
    assert str(pickle.loads(pickle.dumps(damaged))) == str(damaged)
