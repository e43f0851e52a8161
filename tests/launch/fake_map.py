"""Functions for Ray Data actors, and a driver: python fake_map.py MODE FOLDER [WORKERS] prints what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from generative.errors import DataError, GenerativeError


def make(mode: str, folder: str) -> Callable[[int], tuple[int, int]]:
    """Squares; item 3 meets its fate."""
    with open(Path(folder) / "made", "a") as file:
        file.write(f"{os.getpid()}\n")
    if mode == "unmakeable":
        raise DataError("no checkpoint here", "one", "make one")

    def square(item: int) -> tuple[int, int]:
        if item == 3:
            _fate(mode, Path(folder))
        time.sleep(0.05)
        return item * item, os.getpid()

    return square


def _fate(mode: str, folder: Path) -> None:
    with open(folder / "tries", "a") as file:
        file.write("x")
    once = (folder / "tries").read_text() == "x"
    if mode == "always" or (mode == "once" and once):
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "error":
        raise DataError("a bad three", "another number", "take four")
    if mode == "fault":
        raise ZeroDivisionError("nobody thought of this")


def main(mode: str, folder: str, workers: str = "2") -> None:
    from launch import ray_map
    from launch.sections import LaunchConfig

    if mode == "always":
        ray_map.TRIES = 2  # each starts a process
    told: list[int] = []
    launch = LaunchConfig(workers=int(workers), cpus_per_worker=0.5)
    found: dict[str, object] = {}
    try:
        done = ray_map.map_items(
            list(range(10)),
            partial(make, mode, folder),
            launch,
            Path(folder) / "map.log",
            lambda n, all: told.append(n),
        )
        found = {"squares": [square for square, _ in done], "processes": len({pid for _, pid in done})}
    except GenerativeError as error:
        found = {"error": type(error).__name__, "text": str(error), "code": error.exit_code}
    print(json.dumps(found | {"told": told}))


if __name__ == "__main__":
    from fake_map import main as imported  # what is made must not live in __main__

    imported(*sys.argv[1:])
