from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from generative.errors import ConfigError, ResourceError
from generative.training.runfolder import read_lines
from launch.prometheus import Prometheus, check_port, is_loopback
from launch.schema import RunConfig, load_run_config
from launch.trackers import check_trackers, make_trackers
from tests.end_to_end.runs import CONFIG

pytest.importorskip("prometheus_client")


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def occupied(port: int) -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield port


def config(*overrides: str) -> RunConfig:
    return load_run_config(str(CONFIG), overrides)


def scrape(port: int) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_the_newest_values_are_served_until_the_end(port: int) -> None:
    server = Prometheus("127.0.0.1", port, "mine")
    try:
        before = scrape(port)
        assert before == {'generative_run_info{run="mine"}': 1, "generative_step": 0}
        server.log(3, {"loss/denoise": 5.0})
        values = {"loss/denoise": 2.5, "loss/critic": 0.5, "tokens_per_second": 1e6, "samples": 70.0, "mfu": 0.4}
        values |= {
            "restarts": 2,
            "lost_seconds": 1.5,
            "checkpoint_seconds": 0.25,
            "host_memory_gb": 1.5,
            "lr/denoise": 1,
        }
        server.log(7, values)
        server.log(7, {"validation/denoise": 2.75})
        assert scrape(port) == {
            'generative_run_info{run="mine"}': 1,
            "generative_step": 7,
            'generative_loss{update="denoise"}': 2.5,
            'generative_loss{update="critic"}': 0.5,
            'generative_validation_loss{update="denoise"}': 2.75,
            "generative_tokens_per_second": 1e6,
            "generative_mfu": 0.4,
            "generative_host_memory_bytes": 1.5e9,
            "generative_samples_total": 70,
            "generative_restarts_total": 2,
            "generative_lost_seconds_total": 1.5,
            "generative_checkpoint_seconds_total": 0.25,
        }
    finally:
        server.close()
    with pytest.raises(OSError, match="refused"):
        scrape(port)
    Prometheus("127.0.0.1", port, "next").close()


def test_a_port_in_use_is_told_before_anything_starts(occupied: int) -> None:
    for attempt in (
        lambda: check_trackers(config(f"track.prometheus={occupied}")),
        lambda: Prometheus("127.0.0.1", occupied, "mine"),
    ):
        with pytest.raises(ResourceError, match=f"track.prometheus={occupied} .* Address already in use") as caught:
            attempt()
        assert "track.prometheus=null" in caught.value.remedy


def test_an_address_that_is_not_here(port: int) -> None:
    for host in ("203.0.113.7", "no.such.host.invalid"):
        with pytest.raises(ResourceError, match=host):
            check_port(host, port)


def test_a_cluster_elsewhere_is_asked_only_by_rank_0(occupied: int) -> None:
    check_trackers(config(f"track.prometheus={occupied}", "launch.address=10.0.0.1:6379"))


def test_off_unless_asked_and_warned_of_where_others_can_reach_it(tmp_path: Path, port: int) -> None:
    assert make_trackers(config(), tmp_path) == []
    for host, warnings in (("127.0.0.1", 0), ("0.0.0.0", 1)):
        (server,) = make_trackers(config(f"track.prometheus={port}", f"track.prometheus_host={host}"), tmp_path)
        server.close()
        told = [event for event in read_lines(tmp_path / "events.jsonl") if event["kind"] == "warning"]
        assert len(told) == warnings
    assert f"0.0.0.0:{port}" in json.dumps(told)


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "::", "example.org", "")))


def test_impossible_ports_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "70000", "-1", "x"):
        with pytest.raises(ConfigError, match=r"track\.prometheus"):
            config(f"track.prometheus={value}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="package prometheus_client") as caught:
        check_trackers(config("track.prometheus=9000"))
    assert "generative[prometheus]" in caught.value.remedy
