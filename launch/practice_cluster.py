"""A Ray cluster of several nodes on this one machine, to practise faults on: each node is a raylet of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any

from generative.errors import ResourceError
from launch.ray_cluster import OBJECT_STORE_BYTES, temporary_folder
from launch.ray_slim import bare_head


class PracticeCluster:
    """The head has no room for workers; nodes are added and killed one by one.

    The cluster belongs to a process of its own (`python -m launch.practice_cluster`) that ends with this object, or
    with this process.

    Args:
        nodes: nodes for workers at the start.
        cores: CPU cores that each of them offers (they may be more than the machine has).

    Raises:
        ResourceError: it does not start.
    """

    def __init__(self, nodes: int, cores: float = 1) -> None:
        self.environment = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        """What drivers need to be let in."""
        self._size = (str(nodes), str(cores))
        self._start()

    def _start(self) -> None:
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the cluster)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "launch.practice_cluster", *self._size],
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
        )
        self.address = str(self._answer())

    def restart(self) -> None:
        """Another cluster after `close`, at another address."""
        self._start()

    def add(self) -> str:
        """One more node; its id."""
        return str(self._do("add"))

    def kill(self, node: str) -> None:
        """End a node's raylet without warning; its workers die with it."""
        self._do("kill", node)

    def drain(self, node: str) -> None:
        """Announce that a node will be taken away, as a cloud does before it reclaims one."""
        self._do("drain", node)

    def close(self) -> None:
        """End the whole cluster."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def _do(self, *words: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._words.seek(0)
            last = self._words.read().strip().rpartition("\n")[2]
            raise ResourceError(
                f"the practice cluster on this machine did not start, or broke down: {last or 'it said nothing'}",
                "a few raylets with their own addresses (127.0.0.2, ...)",
                "free memory and cores, or practise with fewer nodes",
            )
        return json.loads(line)

    def __enter__(self) -> PracticeCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def serve(nodes: int, cores: float) -> None:
    """The process that owns the cluster: obeys lines of standard input until it closes."""
    from ray.cluster_utils import Cluster

    folder = temporary_folder()
    # Else Ray writes this cluster's address to where "auto" looks for one, and fails where that folder is not there.
    os.environ["RAY_TMPDIR"] = str(folder)
    (folder / "ray").mkdir()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    with bare_head():
        cluster = Cluster(initialize_head=True, head_node_args=head | {"temp_dir": str(folder)})
    members: dict[str, Any] = {}

    def add() -> str:
        # An address of its own, so that Ray sees another machine.
        own = f"127.0.0.{len(members) + 2}"
        node = cluster.add_node(num_cpus=cores, node_ip_address=own, object_store_memory=OBJECT_STORE_BYTES)
        members[str(node.node_id)] = node
        return str(node.node_id)

    def kill(name: str) -> None:
        cluster.remove_node(members[name], allow_graceful=False)

    def drain(name: str) -> None:
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "practice"]
        until = ["--deadline-remaining-seconds", "300"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", cluster.address]
        subprocess.run([*command, "--node-id", name, *reason, *until], check=True, stdout=subprocess.DEVNULL)

    doors: dict[str, Callable[..., str | None]] = {"add": add, "kill": kill, "drain": drain}
    try:
        for _ in range(nodes):
            add()
        print(json.dumps(cluster.address), flush=True)
        for line in sys.stdin:
            door, *names = json.loads(line)
            print(json.dumps(doors[door](*names)), flush=True)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
