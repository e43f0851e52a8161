from __future__ import annotations

import pytest

from generative.errors import ConfigError
from launch.asked import as_changes, asked_launch, split_overrides
from launch.sections import LaunchConfig

OWN = LaunchConfig(workers=64, nodes=8, min_workers=4, gpus_per_worker=1, cpus_per_worker=3, address="head:6379")


def test_overrides_are_sorted_by_section() -> None:
    given = ["launch.workers=2", "evaluate.windows=5", "launch.address=null"]
    assert split_overrides(given, ("evaluate",)) == ([given[0], given[2]], [given[1]])
    assert as_changes(["evaluate.windows=5", "sample.length=null"]) == {"evaluate.windows": 5, "sample.length": None}


@pytest.mark.parametrize("wrong", ["train.steps=4", "data.path=x", "evaluat.windows=3", "launch=3", "evaluate"])
def test_how_a_run_was_trained_cannot_be_changed(wrong: str) -> None:
    with pytest.raises(ConfigError, match="cannot be set for a run that is there already"):
        split_overrides([wrong], ("evaluate",))


def test_workers_are_those_asked_for_not_those_that_trained() -> None:
    assert asked_launch(OWN, [], None) is None
    asked = asked_launch(OWN, ["launch.cpus_per_worker=2"], 6)
    assert asked is not None
    assert (asked.workers, asked.nodes, asked.min_workers) == (6, None, None)
    assert (asked.gpus_per_worker, asked.cpus_per_worker, asked.address) == (1, 2, "head:6379")
    alone = asked_launch(OWN, ["launch.address=null"], None)
    assert alone is not None
    assert (alone.workers, alone.address) == (1, None)


def test_unknown_keys_come_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"launch\.wrkers: unknown key .*Did you mean launch\.workers\?"):
        asked_launch(OWN, ["launch.wrkers=2"], None)
    with pytest.raises(ConfigError, match=r"launch\.workers: 0 is not valid"):
        asked_launch(OWN, ["launch.workers=0"], None)
