"""Where workers go: which nodes have room, and how workers are spread over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from generative.errors import ResourceError

if TYPE_CHECKING:
    from launch.sections import LaunchConfig

Nodes = Mapping[str, Mapping[str, float]]
"""Resources by node: {"id": {"CPU": 4.0, "GPU": 1.0, "memory": 8e9}}."""


def resources_per_worker(launch: LaunchConfig) -> dict[str, float]:
    """What one worker reserves, in Ray's names and units."""
    needed = {"CPU": float(launch.cpus_per_worker)}
    if launch.gpus_per_worker:
        needed["GPU"] = launch.gpus_per_worker
    if launch.memory_per_worker:
        needed["memory"] = launch.memory_per_worker * 1e9
    return needed


def places(launch: LaunchConfig, node: Mapping[str, float]) -> int:
    """Workers that fit into one node."""
    needed = resources_per_worker(launch)
    return min(math.floor(node.get(kind, 0.0) / amount + 1e-6) for kind, amount in needed.items())


def seats(launch: LaunchConfig, nodes: Nodes) -> list[str]:
    """The node of each worker, for as many workers as there is room for, at most launch.workers.

    With launch.nodes they take turns over so many nodes, and none gets more than its even share, so that a run that has
    lost a node does not crowd the others. Without, the emptiest node is filled first.
    """
    room = {name: places(launch, node) for name, node in nodes.items()}
    if launch.nodes is None:
        order = sorted(room, key=lambda name: -room[name])
        return [name for name in order for _ in range(room[name])][: launch.workers]
    share = math.ceil(launch.workers / launch.nodes)
    chosen = sorted(room, key=lambda name: -min(room[name], share))[: launch.nodes]
    turns = [name for turn in range(share) for name in chosen if turn < room[name]]
    return turns[: launch.workers]


def check_resources(launch: LaunchConfig, nodes: Nodes, where: str) -> None:
    """Make sure that all workers (or launch.min_workers of them) can be placed at once.

    Args:
        launch: what is asked for.
        nodes: what each node has.
        where: names the machine or cluster in the message.

    Raises:
        ResourceError: with what there is and what to change.
    """
    found = len(seats(launch, nodes))
    if found >= (launch.min_workers or launch.workers):
        return
    each, keys = _asked(launch)
    spread = f" over launch.nodes={launch.nodes}" if launch.nodes is not None else ""
    smaller = f"launch.workers to {found} (results stay the same)" if found else keys
    raise ResourceError(
        f"launch.workers={launch.workers} of {each}{' each' if launch.workers > 1 else ''}{spread}: "
        f"{where} has {_had(launch, list(nodes.values()))}",
        expected=f"at most {_count(found, 'worker')} of this size" if found else "room for at least one worker",
        remedy=f"lower {smaller}, or name a larger cluster with launch.address",
    )


def _asked(launch: LaunchConfig) -> tuple[str, str]:
    """What one worker needs in words, and the keys that say so."""
    needs = [(_count(launch.cpus_per_worker, "core"), "launch.cpus_per_worker")]
    if launch.gpus_per_worker:
        needs.append((_count(launch.gpus_per_worker, "GPU"), "launch.gpus_per_worker"))
    if launch.memory_per_worker:
        needs.append((f"{launch.memory_per_worker:g} GB", "launch.memory_per_worker"))
    return " and ".join(text for text, _ in needs), " or ".join(key for _, key in needs)


def _had(launch: LaunchConfig, nodes: Sequence[Mapping[str, float]]) -> str:
    """What all nodes have together, and how many they are where that may be the reason."""
    total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU", "memory")}
    parts = [_count(total["CPU"], "core")]
    if launch.gpus_per_worker:
        parts.append(_count(total["GPU"], "GPU"))
    if launch.memory_per_worker:
        parts.append(f"{total['memory'] / 1e9:.1f} GB")
    text = " and ".join(parts)
    return f"{text} on {_count(len(nodes), 'node')}" if len(nodes) > 1 or (launch.nodes or 1) > 1 else text


def _count(number: float, what: str) -> str:
    """ "1 GPU", "0.5 GPUs"."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"
