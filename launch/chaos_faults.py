"""The faults that `generative chaos` knows: how each is asked for, and how it is done to a running training.

They are done from outside, by signals and limits to processes of this machine; a run has no door for them.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.errors import ConfigError, ResourceError
from generative.training.checkpoint.rotation import complete_steps
from generative.training.runfolder import read_lines
from launch.practice_cluster import PracticeCluster
from launch.ray_worker import WORKERS


@dataclass(frozen=True)
class Fault:
    """What is to happen, and when.

    Args:
        kind: a key of FAULTS.
        step: of training, at (or just after) which it happens.
    """

    kind: str
    step: int


@dataclass
class Target:
    """The run that a fault is done to.

    Args:
        folder: its run folder.
        driver: the command that trains.
        cluster: the practice cluster that it runs on, if it is one.
        dice: chooses victims.
        elastic: whether the run may go on with fewer workers; otherwise lost nodes are replaced.
    """

    folder: Path
    driver: subprocess.Popen[bytes]
    dice: random.Random
    cluster: PracticeCluster | None = None
    elastic: bool = False

    def workers(self) -> list[Mapping[str, Any]]:
        """The processes of the newest group.

        Raises:
            ResourceError: they are on other machines.
        """
        lines = read_lines(self.folder / WORKERS)
        newest: list[Mapping[str, Any]] = [line for line in lines if line["driver"] == lines[-1]["driver"]]
        newest = [line for line in newest if line["attempt"] == newest[-1]["attempt"]]
        if any(line["host"] != socket.gethostname() for line in newest):
            raise ResourceError(
                f"workers run on {newest[0]['host']}: chaos does its faults to processes of this machine only",
                "a run on this machine",
                "leave launch.address out; chaos makes a cluster of several nodes here where faults need one",
            )
        return newest

    def signal_worker(self, number: int) -> None:
        """Send a signal to one of them."""
        os.kill(int(self.dice.choice(self.workers())["pid"]), number)


def _worker(target: Target) -> None:
    target.signal_worker(signal.SIGKILL)


def _hang(target: Target) -> None:
    target.signal_worker(signal.SIGSTOP)


def _sigterm(target: Target) -> None:
    target.signal_worker(signal.SIGTERM)


def _driver(target: Target) -> None:
    target.driver.kill()


def _disk(target: Target) -> None:
    """Rank 0 can write no file from now on, as on a full disk."""
    first = next(line for line in target.workers() if line["rank"] == 0)
    _, hard = resource.prlimit(int(first["pid"]), resource.RLIMIT_FSIZE)
    resource.prlimit(int(first["pid"]), resource.RLIMIT_FSIZE, (0, hard))


def _corrupt(target: Target) -> None:
    """One byte of the newest checkpoint changes; then a worker dies, so that it is needed."""
    folder = target.folder / "checkpoints"
    file = sorted((folder / f"step_{complete_steps(folder)[-1]:06d}").glob("*.safetensors"))[0]
    with open(file, "r+b") as victim:
        victim.seek(-1, os.SEEK_END)
        byte = victim.read(1)[0]
        victim.seek(-1, os.SEEK_END)
        victim.write(bytes([byte ^ 1]))
    _worker(target)


def _raylet(target: Target) -> None:
    assert target.cluster is not None
    target.cluster.kill(str(target.dice.choice(target.workers())["node"]))
    if not target.elastic:
        target.cluster.add()


def _preempt(target: Target) -> None:
    assert target.cluster is not None
    if not target.elastic:
        target.cluster.add()
    target.cluster.drain(str(target.dice.choice(target.workers())["node"]))


def _cluster(target: Target) -> None:
    assert target.cluster is not None
    target.cluster.close()


FAULTS: dict[str, tuple[Callable[[Target], None], str]] = {
    "worker": (_worker, "a worker is killed"),
    "hang": (_hang, "a worker freezes"),
    "sigterm": (_sigterm, "a worker is told to end (SIGTERM)"),
    "driver": (_driver, "the command is killed and given again"),
    "disk": (_disk, "the disk is full; the command is given again"),
    "corrupt": (_corrupt, "the newest checkpoint is damaged and a worker killed"),
    "raylet": (_raylet, "a node dies"),
    "preempt": (_preempt, "a node is announced to be taken away"),
    "cluster": (_cluster, "the whole cluster dies; the command is given again, with a new one"),
}

OF_NODES = ("raylet", "preempt", "cluster")
"""Faults that need a cluster of several nodes."""

ENDING = ("driver", "disk", "cluster")
"""Faults after which the same command must be given again."""


def parse(text: str, steps: int | None = None) -> list[Fault]:
    """ "worker@50,driver@80" as faults, by step.

    Args:
        text: what was asked for.
        steps: of the whole run, where known.

    Raises:
        ConfigError: an unknown kind, or a step that is none of the run's.
    """
    return sorted((_parse_one(part.strip(), steps) for part in text.split(",")), key=lambda fault: fault.step)


def _parse_one(part: str, steps: int | None) -> Fault:
    from generative.errors import suggestion

    kind, _, step = part.partition("@")
    last = f" and below {steps}" if steps is not None else ""
    if kind not in FAULTS or not step.isdigit() or not 0 < int(step) < (steps or int(step) + 1):
        guess = "" if kind in FAULTS else suggestion(kind, FAULTS)
        raise ConfigError(
            f"--kill {part!r}: not a fault of this run{guess}",
            f"KIND@STEP with KIND one of {', '.join(FAULTS)} and STEP above 0{last}",
            "for example --kill worker@50,driver@80",
        )
    return Fault(kind, int(step))


def needs_nodes(faults: Sequence[Fault]) -> bool:
    """Whether they need a cluster of several nodes."""
    return any(fault.kind in OF_NODES for fault in faults)
