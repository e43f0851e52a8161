"""`python -m launch.ray_nodes ADDRESS NODES SECONDS`: wait until a Ray cluster has so many nodes. For job scripts."""

from __future__ import annotations

import os
import sys
import threading
import time

from generative.errors import ResourceError

POLL_SECONDS = 0.5


def wait_for_nodes(address: str, nodes: int, seconds: float) -> None:
    """Returns as soon as the cluster has the nodes. Ends the process where they do not come.

    Args:
        address: host:port of its head.
        nodes: nodes that must be alive.
        seconds: at most so long.
    """
    import ray

    alive = 0

    def give_up() -> None:
        # Ray's own waiting for a head that is not there cannot be interrupted.
        print(_too_late(address, alive, nodes, seconds), file=sys.stderr, flush=True)
        os._exit(ResourceError.exit_code)

    watchdog = threading.Timer(seconds, give_up)
    watchdog.daemon = True
    watchdog.start()
    _join(address)
    while alive < nodes:
        time.sleep(POLL_SECONDS)
        alive = sum(node["Alive"] for node in ray.nodes())
    watchdog.cancel()
    ray.shutdown()


def _too_late(address: str, alive: int, nodes: int, seconds: float) -> ResourceError:
    return ResourceError(
        f"the Ray cluster at {address} has {alive} of {nodes} nodes after {seconds:g} s",
        "all nodes of the job",
        "look at logs/ray_head.log and logs/ray_nodes.log in the run folder, or raise cluster.start_seconds",
    )


def _join(address: str) -> None:
    """Ray refuses to join while the first node is still starting."""
    import ray

    while True:
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
            return
        except (ConnectionError, RuntimeError, ValueError):
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    wait_for_nodes(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
