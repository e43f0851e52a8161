"""Groups of workers, one after another: what is counted, told and tried again. Ray itself is stood in for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from generative.errors import DataError
from launch import ray_cluster
from launch.restarts import Groups, WorkersError
from launch.schema import load_run_config

BAD = DataError("shard 3 is damaged", "a whole one", "prepare it again")
WRAPPED = RuntimeError("Traceback (most recent call last):\n  File ...\nRuntimeError: the worker met its fate")
DIED = type("WorkerHealthCheckFailedError", (Exception,), {})


class FailedError(Exception):
    """As Ray Train tells which workers failed."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("workers failed")
        self.worker_failures = failures


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Groups, list[int]]]:
    """Groups that end as they are told; and the attempts that there were."""

    def make(*ends: Exception | None, **launch: Any) -> tuple[Groups, list[int]]:
        attempts: list[int] = []

        def fit(config: Any, folder: Path, work: Any, nodes: Any, attempt: int) -> None:
            attempts.append(attempt)
            end = ends[min(attempt, len(ends)) - 1]
            if end is not None:
                raise end
            (folder / "outcome.json").write_text(json.dumps({"state": "complete"}))

        monkeypatch.setitem(sys.modules, "launch.ray_group", SimpleNamespace(fit=fit))
        monkeypatch.setattr("launch.ray_group", SimpleNamespace(fit=fit), raising=False)
        monkeypatch.setattr(ray_cluster, "find_seats", lambda launch, say: ["node"] * launch.workers)
        words = [f"launch.{key}={value}" for key, value in {"workers": 2, **launch}.items()]
        config = load_run_config("masked_diffusion/quickstart", [*words, f"run.dir={tmp_path}"])
        (tmp_path / "logs").mkdir(exist_ok=True)
        (tmp_path / "status.json").write_text("{}")
        watch = SimpleNamespace(nodes=set(), leaving=set(), stop_asked=lambda: False)
        return Groups(config, tmp_path, None, watch), attempts  # type: ignore[arg-type]

    return make


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_workers_that_die_are_started_again_as_often_as_allowed(groups, tmp_path: Path) -> None:
    made, attempts = groups(FailedError({1: DIED("...")}), FailedError({0: DIED("...")}), None, max_restarts=2)
    made.train()
    assert attempts == [1, 2, 3]
    told = [event["message"] for event in events(tmp_path) if event["kind"] == "restart"]
    assert [message.split(" died")[0] for message in told] == ["1 of 2: worker 1", "2 of 2: worker 0"]


def test_a_crash_that_repeats_ends_with_its_cause(groups, tmp_path: Path) -> None:
    made, attempts = groups(FailedError({1: WRAPPED}), max_restarts=1)
    with pytest.raises(WorkersError) as error:
        made.train()
    assert attempts == [1, 2]
    told = "the workers failed 2 time(s); the last time worker 1 failed: RuntimeError: the worker met its fate"
    assert told in str(error.value)
    assert "Traceback" not in str(error.value)
    assert "the worker met its fate" in (tmp_path / "logs" / "worker_errors.log").read_text()


def test_a_users_mistake_is_not_tried_again(groups, tmp_path: Path) -> None:
    made, attempts = groups(FailedError({0: RuntimeError("Connection closed by peer"), 1: BAD}))
    with pytest.raises(DataError, match="shard 3 is damaged"):
        made.train()
    assert attempts == [1]
    assert not [event for event in events(tmp_path) if event["kind"] == "restart"]
