"""Whole runs over several Ray nodes on this machine: spread, lose nodes, go on; over a real network where root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launch.practice_cluster import PracticeCluster
from tests.end_to_end.runs import QUIET, Run, kill_group, write_text

pytest.importorskip("ray")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
STEPS = "train.steps=240"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_text(folder)
    return folder


@pytest.fixture(scope="module")
def alone(texts, tmp_path_factory):
    """One process."""
    run = Run(texts, tmp_path_factory.mktemp("alone") / "run")
    run.finish("launch.backend=local", "launch.workers=1", STEPS, *QUIET)
    return run


def places(run: Run, attempt: int) -> list[str]:
    return [line["node"] for line in run.lines("logs/workers.jsonl") if line["attempt"] == attempt]


def test_nodes_are_lost_and_the_run_goes_on_with_those_that_are_left(alone, texts, tmp_path, monkeypatch):
    run = Run(texts, tmp_path / "run")
    with PracticeCluster(nodes=3) as cluster:
        for key, value in cluster.environment.items():
            monkeypatch.setenv(key, value)
        wanted = (f"launch.address={cluster.address}", "launch.nodes=2", "launch.min_workers=1")
        process = run.start(*wanted, "launch.wait_seconds=5", STEPS, *QUIET)
        run.wait_for(lambda: run.step() >= 25, process)
        first = places(run, 1)
        cluster.kill(first[1])
        run.wait_for(lambda: len(places(run, 2)) == 2 and run.step() >= 80, process)
        second = places(run, 2)
        cluster.kill(second[1])
        output = run.end(process)
    assert len(set(first)) == len(set(second)) == 2
    assert first[1] not in second  # the spare node took over
    assert places(run, 3) in ([node] for node in second)  # and then there was one
    assert "there is room for 1 of 2 workers: going on with 1 (launch.min_workers=1)" in output
    assert [event["kind"] for event in run.lines("events.jsonl")].count("restart") == 2
    assert_same(run.losses(), alone.losses())


def assert_same(losses: list[float], expected: list[float]) -> None:
    """Two ranks add in another order than one, which grows with the steps; a batch lost or seen twice is 1e-1."""
    assert losses[:20] == pytest.approx(expected[:20], rel=1e-5)
    assert losses == pytest.approx(expected, rel=2e-4)


SWITCH = """
ip netns add {0}sw
ip netns exec {0}sw ip link add br0 type bridge
ip netns exec {0}sw ip link set br0 up
"""
HOST = """
ip netns add {0}{1}
ip link add {0}v{1} type veth peer name {0}p{1}
ip link set {0}v{1} netns {0}{1}
ip link set {0}p{1} netns {0}sw
ip netns exec {0}sw ip link set {0}p{1} master br0
ip netns exec {0}sw ip link set {0}p{1} up
ip netns exec {0}{1} ip addr add 10.99.0.{2}/24 dev {0}v{1}
ip netns exec {0}{1} ip link set {0}v{1} up
ip netns exec {0}{1} ip link set lo up
"""


class Network:
    """Three hosts on a switch: network namespaces 10.99.0.1 to .3, which see one another and nothing else."""

    def __init__(self) -> None:
        self.name = f"g{os.getpid() % 100000:x}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def build(self) -> bool:
        text = SWITCH.format(self.name) + "".join(HOST.format(self.name, i, i + 1) for i in range(3))
        return all(
            not subprocess.run(line.split(), capture_output=True).returncode for line in text.split("\n") if line
        )

    def inside(self, host: int) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}{host}"]

    def start(self, host: int, said: Path, *words: str) -> None:
        """`ray start` there; returns as soon as the node is up."""
        with said.open("wb") as log:
            process = subprocess.Popen([*self.inside(host), *words], stdout=log, stderr=log)
        self.processes.append(process)
        deadline = time.monotonic() + 60
        while b"Ray runtime started" not in said.read_bytes():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)

    def close(self) -> None:
        for process in self.processes:
            for each in (*psutil.Process(process.pid).children(recursive=True), process):
                each.kill()
            process.wait(timeout=30)
        self.processes = []
        for host in ("sw", 0, 1, 2):
            subprocess.run(["ip", "netns", "del", f"{self.name}{host}"], capture_output=True)


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("making network namespaces needs root and ip")
    try:
        if not network.build():
            pytest.skip("this system makes no network namespaces")
        yield network
    finally:
        network.close()


def test_workers_on_two_hosts_talk_over_the_network_between_them(alone, texts, network, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    folder = Path(f"/tmp/{network.name}")  # Ray's sockets need a short path
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
    small = ["--object-store-memory=100000000"]
    try:
        head = ["--head", "--port=6399", "--include-dashboard=false", "--num-cpus=0", f"--temp-dir={folder}"]
        network.start(0, tmp_path / "head.log", *ray, *small, *head, "--node-ip-address=10.99.0.1")
        for host in (1, 2):
            join = ["--address=10.99.0.1:6399", "--num-cpus=1", f"--node-ip-address=10.99.0.{host + 1}"]
            # One after the other: two that start at once on one file system get in each other's way.
            network.start(host, tmp_path / f"node_{host}.log", *ray, *small, *join)
        run = Run(texts, tmp_path / "run")
        wanted = ("launch.address=10.99.0.1:6399", "launch.nodes=2", STEPS, *QUIET)
        process = run.start(*wanted, before=network.inside(0))
        try:
            run.end(process)
        finally:
            kill_group(process)
        assert len(set(places(run, 1))) == 2
        assert_same(run.losses(), alone.losses())
    finally:
        network.close()
        shutil.rmtree(folder, ignore_errors=True)
