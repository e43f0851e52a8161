"""What listens at an address is known for a cluster or refused, and no cluster is waited for without an end."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from generative.errors import ResourceError
from launch import cluster_watch, ray_cluster, ray_map
from launch.cluster_watch import ClusterLostError, ClusterWatch
from launch.ray_train import RayBackend
from launch.schema import LaunchConfig

SETTINGS = b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 0.5)


@pytest.fixture
def server():
    """Starts servers that say something to the first who comes; gives their addresses."""
    listeners = []

    def start(*words: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                for word in words:
                    connection.sendall(word)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def test_a_head_is_known_by_its_first_frame_in_however_many_pieces(server):
    assert ray_cluster.answers(server(SETTINGS)) is None
    assert ray_cluster.answers(server(SETTINGS[:2], SETTINGS[2:3], SETTINGS[3:])) is None


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR\r\n", b""])
def test_another_program_is_none(server, words):
    assert "no Ray head" in str(ray_cluster.answers(server(words)))


def test_who_says_nothing_is_refused_before_anything_starts(mute):
    with pytest.raises(ResourceError, match=r"no Ray cluster answers at launch\.address.*no word within 0\.5 s"):
        ray_cluster.precheck(LaunchConfig(address=f"127.0.0.1:{mute}"))


def test_with_certificates_a_connection_must_do(mute, monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert ray_cluster.answers(f"127.0.0.1:{mute}") is None


@pytest.mark.parametrize(
    ("error", "patience"), [(ConnectionRefusedError("refused"), 15.0), (TimeoutError("no word"), 60.0)]
)
def test_a_head_is_given_up_sooner_when_it_is_gone_than_when_it_is_slow(tmp_path, monkeypatch, error, patience):
    now, told, left = [1000.0], [], []
    monkeypatch.setattr(cluster_watch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cluster_watch.os, "_exit", left.append)
    monkeypatch.setattr(ray_cluster, "answers", lambda head: error)
    watch = ClusterWatch(tmp_path, "the cluster", lambda: False, told.append)
    now[0] += patience - 1
    watch._ask("head:1")
    assert (told, left) == ([], [])
    now[0] += 2
    watch._ask("head:1")
    assert left == [1]
    assert isinstance(told[0], ClusterLostError)


def test_a_driver_that_never_joins_is_given_up(tmp_path, monkeypatch):
    from launch.schema import load_run_config
    from tests.end_to_end.runs import CONFIG

    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 0.3)
    config = load_run_config(str(CONFIG), ["launch.workers=1"])
    backend = RayBackend(config, tmp_path, None, None)
    follower = SimpleNamespace(poll=lambda: None)
    with pytest.raises(ResourceError, match=r"start of a Ray cluster on this machine was waited for 0\.3 s in vain"):
        backend.run(follower, SimpleNamespace(count=0))


@pytest.mark.parametrize("state", ["complete", "interrupted", "failed", None])
def test_a_cluster_that_is_lost_after_the_workers_end_is_not_missed(tmp_path, state):
    from launch.schema import load_run_config
    from tests.end_to_end.runs import CONFIG

    if state:
        (tmp_path / "outcome.json").write_text(json.dumps({"state": state}))
    backend = RayBackend(load_run_config(str(CONFIG), ["launch.workers=1"]), tmp_path, None, None)
    told = backend._line.result
    told.send(ClusterLostError("gone", "a cluster", "start it again"))
    missed = state not in ("complete", "interrupted")
    for _ in range(2):  # told, then found out by the end of its process
        with pytest.raises(ClusterLostError) if missed else contextlib.nullcontext():
            backend._receive()
        told.close()


def test_a_map_that_never_joins_is_given_up(tmp_path, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 0.3)
    monkeypatch.setattr(ray_cluster, "connect", lambda *_: gate.wait(30))
    monkeypatch.setattr(ray_map, "abandoned", threading.Event())
    launch = LaunchConfig(workers=2, address="somewhere:1")
    with pytest.raises(ResourceError, match=r"joining the cluster at somewhere:1 was waited for"):
        ray_map._Job([1, 2], None, launch, None).wait(tmp_path, tmp_path / "log")
    # gate stays shut: the thread must not go on to use Ray


@pytest.mark.distributed
@pytest.mark.timeout(120)
def test_a_real_head_answers_and_a_frozen_one_does_not(tmp_path, monkeypatch):
    """Ray's own address file, by which "auto" finds a cluster, is left alone."""
    pytest.importorskip("ray")
    from launch.practice_cluster import PracticeCluster

    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 5.0)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    with PracticeCluster(nodes=0) as cluster:
        assert ray_cluster.answers(cluster.address) is None
        monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 1.0)
        family = psutil.Process(cluster._process.pid).children(recursive=True)
        (head,) = [process for process in family if process.name() == "gcs_server"]
        head.suspend()
        try:
            while head.status() != psutil.STATUS_STOPPED:
                time.sleep(0.05)
            assert isinstance(ray_cluster.answers(cluster.address), TimeoutError)
        finally:
            head.resume()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
@pytest.mark.parametrize("refused", [False, True])
def test_ray_takes_nobodys_handler_of_sigterm(monkeypatch, tmp_path, address, refused):
    """A stopped job signals all its processes: with Ray's handler the driver would leave before the workers saved."""

    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        if refused:
            raise ConnectionError("no")

    def mine(number, frame):
        pass

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setattr(ray_cluster, "bare_head", contextlib.nullcontext)
    before = signal.signal(signal.SIGTERM, mine)
    try:
        with pytest.raises(ResourceError) if refused else contextlib.nullcontext():
            ray_cluster.connect(LaunchConfig(address=address), tmp_path)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
