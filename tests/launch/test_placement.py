"""Where workers go, and what is said where they do not fit."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.errors import ResourceError
from launch.placement import check_resources, places, seats
from launch.sections import LaunchConfig


def launch(**fields):
    if fields.get("nodes", 1) > 1:
        fields.setdefault("address", "auto")
    return LaunchConfig(**fields)


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
        (
            {"workers": 2, "memory_per_worker": 3.5},
            {"CPU": 8.0, "memory": 6e9},
            [
                "launch.workers=2 of 1 core and 3.5 GB each: this machine has 8 cores and 6.0 GB",
                "expected: at most 1 worker of this size",
                "to fix: lower launch.workers to 1 (results stay the same), or name a larger cluster with "
                "launch.address",
            ],
        ),
        (
            {"workers": 4, "nodes": 2},
            {"CPU": 16.0},
            [
                "launch.workers=4 of 1 core each over launch.nodes=2: this machine has 16 cores on 1 node",
                "expected: at most 2 workers of this size",
                "to fix: lower launch.workers to 2 (results stay the same), or name a larger cluster with "
                "launch.address",
            ],
        ),
    ],
)
def test_workers_that_do_not_fit(asked, node, lines):
    with pytest.raises(ResourceError) as caught:
        check_resources(launch(**asked), {"a": node}, "this machine")
    assert str(caught.value).splitlines() == lines


def test_fewer_workers_will_do_where_the_run_says_so():
    one_place = {"a": {"CPU": 1.0}, "b": {"CPU": 0.5}}
    check_resources(launch(workers=4, min_workers=1), one_place, "the cluster")
    with pytest.raises(ResourceError):
        check_resources(launch(workers=4, min_workers=2), one_place, "the cluster")


def test_the_emptiest_node_is_filled_first():
    nodes = {"small": {"CPU": 2.0}, "large": {"CPU": 4.0}}
    assert Counter(seats(launch(workers=5), nodes)) == {"large": 4, "small": 1}


@pytest.mark.parametrize(
    ("workers", "nodes", "cores", "counts"),
    [
        (4, 2, [8, 8, 8], [2, 2]),
        (5, 2, [8, 8, 8], [2, 3]),
        (4, 2, [8, 2, 1], [2, 2]),
        (4, 2, [8, 1, 1], [1, 2]),  # not enough for all four: the large node does not take more than its share
        (4, 2, [8], [2]),
    ],
)
def test_workers_are_spread_evenly_over_nodes(workers, nodes, cores, counts):
    found = seats(launch(workers=workers, nodes=nodes), {str(i): {"CPU": n} for i, n in enumerate(cores)})
    assert sorted(Counter(found).values()) == counts


room = st.lists(st.fixed_dictionaries({"CPU": st.integers(0, 9), "memory": st.integers(0, 9)}), max_size=6)


@given(room=room, workers=st.integers(1, 12), share=st.integers(1, 12))
def test_no_node_gets_more_than_it_has_room_for(room, workers, share):
    nodes = {str(i): {"CPU": n["CPU"], "memory": n["memory"] * 1e9} for i, n in enumerate(room)}
    asked = launch(workers=workers, nodes=min(share, workers), memory_per_worker=2, address="auto")
    taken = Counter(seats(asked, nodes))
    assert all(count <= min(nodes[name]["CPU"], nodes[name]["memory"] // 2e9) for name, count in taken.items())
    assert len(taken) <= asked.nodes
    assert sum(taken.values()) <= workers
    anywhere = seats(launch(workers=workers, memory_per_worker=2), nodes)
    assert len(anywhere) == min(workers, sum(places(asked, node) for node in nodes.values()))
