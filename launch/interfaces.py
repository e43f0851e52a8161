"""Which network card the process group talks through."""

from __future__ import annotations

import os
import socket

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""What gloo and nccl are told by; what a node's administrator has set there stays."""


def interface_towards(address: str) -> str | None:
    """Name of the network interface through which this machine reaches `host:port`; None where there is no way to tell.

    Gloo by itself takes the one that the host name resolves to, which on many machines is the loopback.
    """
    import psutil

    host, _, port = address.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
            probe.connect((host, int(port)))
            own = probe.getsockname()[0]
    except (OSError, ValueError):
        return None
    cards = psutil.net_if_addrs().items()
    return next((name for name, addresses in cards if any(entry.address == own for entry in addresses)), None)


def choose_interface(head: str) -> None:
    """Tell gloo (and nccl, unless it is the loopback) to use the interface towards the head, where nothing is set."""
    name = interface_towards(head)
    for variable in VARIABLES if name else ():
        if name != "lo" or variable.startswith("GLOO"):
            os.environ.setdefault(variable, str(name))
