"""Which network card the process group talks through."""

from __future__ import annotations

import os

from launch.interfaces import choose_interface, interface_towards


def test_a_head_on_this_machine_is_reached_by_the_loopback():
    assert interface_towards("127.0.0.1:6379") == "lo"


def test_an_address_that_says_nothing_gives_no_interface():
    assert interface_towards("") is None
    assert interface_towards("nowhere.invalid:1") is None


def test_what_is_set_stays_and_nccl_is_left_alone_on_the_loopback(monkeypatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    choose_interface("127.0.0.1:6379")
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ.get("NCCL_SOCKET_IFNAME")) == ("lo", None)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    choose_interface("127.0.0.1:6379")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
