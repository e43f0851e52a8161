"""Figures of a running training for Prometheus: http://127.0.0.1:PORT/metrics, served by rank 0 while it trains."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from generative.errors import ResourceError

LOSSES = {"loss": "Training loss by update", "validation_loss": "Held-out loss by update"}

GAUGES = {
    "samples_per_second": "Samples of all workers a second",
    "tokens_per_second": "Tokens of all workers a second",
    "mfu": "Model FLOPs utilisation, 0 to 1",
    "eta_seconds": "Training time left",
}
"""Values of a record that are handed on as they are: name and help."""

BYTES = {"host_memory_gb": "Resident memory of rank 0", "device_memory_gb": "Peak of memory allocated on rank 0's GPU"}
"""Values in 10^9 bytes, which Prometheus wants in bytes."""

COUNTERS = {
    "samples": "Samples trained on",
    "restarts": "Restarts of the workers",
    "lost_seconds": "Training time lost with workers and taken again",
    "checkpoint_seconds": "Time that checkpoints have held up training since the last start",
}
"""Values that grow; they may fall back when a run resumes, as counters may."""


class Prometheus:
    """A tracker that keeps the newest values and serves them.

    Args:
        host: address to listen at.
        port: of it.
        run: name of the run, in the metric generative_run_info.

    Raises:
        ResourceError: the port is taken, or there is no such address here.
    """

    def __init__(self, host: str, port: int, run: str) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        self._values: dict[str, float] = {}
        self._run, self._step = run, 0
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise taken(host, port, error) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take over the values; others stay (a validation tells its loss alone)."""
        self._step, self._values = step, self._values | dict(values)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Any:
        """The metrics of this moment (prometheus_client calls it for each request)."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        values = self._values
        yield InfoMetricFamily("generative_run", "What is trained", {"run": self._run})
        yield GaugeMetricFamily("generative_step", "Training steps completed", value=self._step)
        for kind, meaning in LOSSES.items():
            loss = GaugeMetricFamily(f"generative_{kind}", meaning, labels=["update"])
            for name in values:
                if name.startswith(f"{kind.removesuffix('_loss')}/"):
                    loss.add_metric([name.partition("/")[2]], values[name])
            yield loss
        for name, meaning in GAUGES.items():
            if name in values:
                yield GaugeMetricFamily(f"generative_{name}", meaning, value=values[name])
        for name, meaning in BYTES.items():
            if name in values:
                title = f"generative_{name.removesuffix('_gb')}_bytes"
                yield GaugeMetricFamily(title, meaning, value=1e9 * values[name])
        for name, meaning in COUNTERS.items():
            if name in values:
                yield CounterMetricFamily(f"generative_{name}", meaning, value=values[name])


def check_port(host: str, port: int) -> None:
    """Make sure that the port of this machine is free.

    Raises:
        ResourceError: it is not, or there is no such address here.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise taken(host, port, error) from error


def taken(host: str, port: int, error: OSError) -> ResourceError:
    """What is told of a port that cannot be listened at."""
    return ResourceError(
        f"track.prometheus={port} cannot be served at {host}:{port}: {error.strerror or error}",
        "a free port, at an address of the machine where rank 0 runs",
        "give another port (a run beside this one may have it), correct track.prometheus_host, or set "
        "track.prometheus=null",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
