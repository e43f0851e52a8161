"""What is said where workers do not fit."""

from __future__ import annotations

import pytest

from generative.errors import ResourceError
from launch.ray_cluster import check_resources
from launch.schema import LaunchConfig


@pytest.mark.parametrize(
    ("asked", "node", "lines"),
    [
        (
            {"workers": 4, "cpus_per_worker": 2},
            {"CPU": 3.0},
            [
                "launch.workers=4 of 2 cores each: this machine has 3 cores",
                "expected: at most 1 worker of this size",
                "to fix: lower launch.workers to 1 (results stay the same), or name a larger cluster with "
                "launch.address",
            ],
        ),
        (
            {"workers": 1, "gpus_per_worker": 1},
            {"CPU": 1.0},
            [
                "launch.workers=1 of 1 core and 1 GPU: this machine has 1 core and 0 GPUs",
                "expected: room for at least one worker",
                "to fix: lower launch.cpus_per_worker or launch.gpus_per_worker, or name a larger cluster with "
                "launch.address",
            ],
        ),
    ],
)
def test_workers_that_do_not_fit(asked, node, lines):
    with pytest.raises(ResourceError) as caught:
        check_resources(LaunchConfig(**asked), [node], "this machine")
    assert str(caught.value).splitlines() == lines
