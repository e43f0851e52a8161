"""`map_items` by actors that live in this process: all that they are given and give back is pickled, as under Ray."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from launch import ray_map
from launch.sections import LaunchConfig


class ActorsHere:
    """Takes the place of `launch.ray_map.map_items`; the actors take turns.

    `items` are those that it was given, over all calls; `workers` the number of actors of each call.
    """

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.workers: list[int] = []

    def __call__(
        self,
        items: Sequence[Any],
        make: ray_map.Make,
        launch: LaunchConfig,
        log: Path,
        progress: ray_map.Progress | None = None,
    ) -> list[Any]:
        self.items += items
        self.workers.append(launch.workers)
        actors = [ray_map._Actor(pickle.loads(pickle.dumps(make)), "", 1) for _ in range(launch.workers)]
        found = []
        for index, item in enumerate(items):
            batch = {"index": [index], "item": [pickle.dumps(item)]}
            (result,) = map(pickle.loads, actors[index % len(actors)](batch)["result"])
            if result.error is not None:
                raise result.error
            found.append(result.value)
            if progress is not None:
                progress(len(found), len(items))
        return found


def actors_here(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> ActorsHere:
    """Put them into a module that imports `map_items`."""
    actors = ActorsHere()
    monkeypatch.setattr(module, "map_items", actors)
    return actors
