"""Whether every node of a cluster can take part: the same versions, and the run folder before its eyes."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.errors import ResourceError, RunFolderError
from generative.training.runfolder import atomic_write
from launch.environment import versions

COMPARED = ("python", "generative", "torch", "accelerate", "ray")
"""What must be the same on all nodes: other versions give other numbers, or cannot talk to one another."""

ANSWER_SECONDS = 60.0
"""How long a node may take to start a process and answer."""


@dataclass(frozen=True)
class Report:
    """What one node said.

    Args:
        versions: of the packages that are compared; missing where not installed.
        nonce: what it read in the run folder; None where there is none.
    """

    versions: Mapping[str, str]
    nonce: str | None


def compared(strategy: str) -> tuple[str, ...]:
    """Packages that must be the same on all nodes under a parallel.strategy."""
    return (*COMPARED, "deepspeed") if strategy.startswith("zero") else COMPARED


def check_nodes(folder: Path, where: str, nodes: Collection[str], packages: Sequence[str] = COMPARED) -> None:
    """Ask nodes of the cluster that Ray is connected to.

    Args:
        folder: the run folder.
        where: names the cluster in messages.
        nodes: their ids.
        packages: whose versions must be the driver's.

    Raises:
        ResourceError: a node does not answer, or has other versions.
        RunFolderError: a node does not see the run folder.
    """
    nonce, file = secrets.token_hex(8), folder / f".seen-by-all-{secrets.token_hex(4)}"
    atomic_write(file, nonce)
    try:
        own = {name: versions().get(name, "none") for name in packages}
        compare(_ask(file, where, nodes, packages), own, nonce, folder)
    finally:
        file.unlink(missing_ok=True)


def compare(reports: Mapping[str, Report], own: Mapping[str, str], nonce: str, folder: Path) -> None:
    """Refuse nodes that differ.

    Args:
        reports: by the node's name.
        own: the driver's versions.
        nonce: what the driver wrote into the run folder.
        folder: the run folder.

    Raises:
        ResourceError, RunFolderError: as `check_nodes`.
    """
    for node, report in reports.items():
        other = {name: (report.versions.get(name, "none"), version) for name, version in own.items()}
        unequal = [f"{name} {theirs} (here {ours})" for name, (theirs, ours) in other.items() if theirs != ours]
        if unequal:
            raise ResourceError(
                f"node {node} has other versions: {', '.join(unequal)}",
                f"the same {', '.join(own)} on all nodes",
                "install the same versions there (constraints.txt), or take the node out of the cluster",
            )
    blind = [node for node, report in reports.items() if report.nonce != nonce]
    if blind:
        raise RunFolderError(
            f"the run folder {folder} is not seen by node{'s' if len(blind) > 1 else ''} {', '.join(blind)}",
            "a folder that all nodes share (NFS, Lustre, a mounted bucket), under the same path",
            "give run.dir=FOLDER on a file system that all nodes mount",
        )


def _ask(file: Path, where: str, nodes: Collection[str], packages: Sequence[str]) -> dict[str, Report]:
    """The report of each node, by "address (id)"."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    question = ray.remote(_question())
    asked = {}
    for node in (node for node in ray.nodes() if node["NodeID"] in nodes):
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = question.options(num_cpus=0, scheduling_strategy=here, max_retries=0).remote(str(file), tuple(packages))
        asked[task] = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    if silent:
        raise ResourceError(
            f"{where}: no answer from node {', '.join(asked[task] for task in silent)} within {ANSWER_SECONDS:g} s",
            "nodes that start a process when they are asked to",
            "look at the node, or take it out of the cluster",
        )
    return {asked[task]: _answer(task, asked[task]) for task in answered}


def _answer(task: Any, node: str) -> Report:
    import ray

    try:
        return Report(*ray.get(task))
    except Exception as error:
        raise ResourceError(
            f"node {node} could not answer: {str(error).strip().splitlines()[-1]}",
            "a node that runs Python tasks",
            "look at the node, or take it out of the cluster",
        ) from error


def _question() -> Any:
    """The task for a node. A function inside a function: Ray then sends the code, not a name that the node looks up in
    its own (other, or missing) installation."""

    def look(path: str, packages: tuple[str, ...]) -> tuple[dict[str, str], str | None]:
        import pathlib
        import platform
        from importlib import metadata

        found = {"python": platform.python_version()}
        for name in packages:
            try:
                found.setdefault(name, metadata.version(name))
            except metadata.PackageNotFoundError:
                continue
        try:
            return found, pathlib.Path(path).read_text()
        except OSError:
            return found, None

    return look
