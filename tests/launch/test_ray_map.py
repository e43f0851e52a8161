from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import fake_map
import psutil
import pytest

from generative.errors import DataError, ResourceError
from launch.ray_map import MapError, _Actor, map_items
from launch.sections import LaunchConfig

HERE = Path(__file__).parent


def test_one_worker_is_this_process_without_ray(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    make = partial(fake_map.make, "", str(tmp_path))
    found = map_items([2, 5], make, LaunchConfig(), tmp_path / "log", lambda *counts: told.append(counts))
    assert found == [(4, os.getpid()), (25, os.getpid())]
    assert told == [(1, 2), (2, 2)]
    assert (tmp_path / "made").read_text() == f"{os.getpid()}\n"
    with pytest.raises(DataError, match="a bad three"):
        map_items([3], partial(fake_map.make, "error", str(tmp_path)), LaunchConfig(), tmp_path / "log")


def test_too_many_workers_are_refused_before_anything_starts(tmp_path: Path) -> None:
    make = partial(fake_map.make, "", str(tmp_path))
    with pytest.raises(ResourceError, match=r"launch\.workers=5000"):
        map_items([1], make, LaunchConfig(workers=5000), tmp_path / "log")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("error", DataError, "a bad three"),
        ("unmakeable", DataError, "no checkpoint here"),
        ("fault", MapError, "ZeroDivisionError: nobody thought of this"),
    ],
)
def test_what_goes_wrong_in_an_actor_comes_back_as_a_result(tmp_path: Path, mode: str, kind: type, words: str) -> None:
    actor = _Actor(partial(fake_map.make, mode, str(tmp_path)), str(tmp_path / "not here"), 1)
    batch = actor({"index": [7], "item": [pickle.dumps(3)]})
    assert list(batch["index"]) == [7]
    (result,) = map(pickle.loads, batch["result"])
    assert type(result.error) is kind
    assert words in str(result.error)
    assert ("in square" in result.trace) is (mode == "fault")
    if mode != "unmakeable":
        again = pickle.loads(actor({"index": [8], "item": [pickle.dumps(4)]})["result"][0])
        assert again.value == (16, os.getpid())
        assert (tmp_path / "made").read_text() == f"{os.getpid()}\n"


def run(mode: str, folder: Path) -> dict[str, Any]:
    """What `fake_map.main` prints in a process of its own, of which nothing stays behind."""
    command = [sys.executable, str(HERE / "fake_map.py"), mode, str(folder)]
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)
    out = process.communicate(timeout=150)[0]
    made = [int(line) for line in (folder / "made").read_text().split()]
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, made)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, made))
    return json.loads(out.splitlines()[-1]) | {"made": len(made)}


@pytest.mark.distributed
@pytest.mark.timeout(200)
def test_an_actor_that_dies_is_replaced_and_results_keep_their_order(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = run("once", tmp_path)
    assert found["squares"] == [i * i for i in range(10)]
    assert found["processes"] >= 2
    assert found["made"] == 3
    assert (tmp_path / "tries").read_text() == "xx"
    assert found["told"] == sorted(found["told"])
    assert (found["told"][0], found["told"][-1]) == (0, 10)


@pytest.mark.distributed
@pytest.mark.timeout(200)
def test_an_actor_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = run("always", tmp_path)
    assert (found["error"], found["code"]) == ("MapError", 1)
    assert "each part of the work is tried 2 times" in found["text"]
    assert (tmp_path / "tries").read_text() == "xx"


def test_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    assert (
        map_items([], partial(fake_map.make, "error", str(tmp_path)), LaunchConfig(workers=2), tmp_path / "log") == []
    )
    assert not (tmp_path / "log").exists()
