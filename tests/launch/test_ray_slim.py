"""What Ray is told to leave out comes back afterwards; a Ray with other doors starts with all its parts."""

from __future__ import annotations

import socket

import pytest

from launch import ray_cluster, ray_slim

ray = pytest.importorskip("ray")


@pytest.fixture
def listening():
    listener = socket.create_server(("127.0.0.1", 0))
    yield listener.getsockname()[1]
    listener.close()


def test_a_node_that_takes_no_connections_is_none(monkeypatch, listening):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        silent = gone.getsockname()[1]
    ports = {"here": listening, "lost": silent, "dead": listening}
    told = [
        {"NodeID": name, "Alive": name != "dead", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
        for name, port in ports.items()
    ]
    monkeypatch.setattr(ray, "nodes", lambda: [{**node, "Resources": {"CPU": 2.0}} for node in told])
    assert ray_cluster.nodes() == {"here": {"CPU": 2.0}}


def test_a_head_starts_its_other_processes_again_afterwards():
    from ray._private.node import Node

    before = Node.start_monitor
    with ray_slim.bare_head():
        assert Node.start_monitor is not before
        assert Node.start_monitor(None) is None
    assert Node.start_monitor is before


def test_agents_of_clusters_on_one_machine_have_ports_of_their_own():
    from ray._private.parameter import RayParams

    before = RayParams().dashboard_agent_listen_port
    with ray_slim.bare_head():
        assert RayParams(num_cpus=2).dashboard_agent_listen_port == 0
    assert RayParams().dashboard_agent_listen_port == before != 0


def test_what_cannot_be_replaced_stays(monkeypatch):
    from ray.train.v2._internal.execution.worker_group import worker_group

    monkeypatch.delattr(worker_group, "SynchronizationActor")
    ray_slim.slim.cache_clear()
    try:
        assert ray_slim.slim() is None
    finally:
        ray_slim.slim.cache_clear()


def test_this_ray_has_the_doors():
    assert ray_slim.slim() is not None
