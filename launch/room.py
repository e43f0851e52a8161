"""Whether what the workers hold from the first step on fits into the memory there is."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from generative.errors import ResourceError
from launch.formats import sizes, unit

if TYPE_CHECKING:
    from launch.schema import RunConfig


def room(config: RunConfig, per_worker: int, workers: int) -> str:
    """The last part of the plan line; empty where the run's memory cannot be seen from here (a cluster).

    Args:
        config: where the workers run.
        per_worker: bytes of weights, gradients, optimizer, averages and buffers (activations come on top).
        workers: how many there are.

    Raises:
        ResourceError: they do not fit.
    """
    if config.launch.address is not None:
        return ""
    if config.launch.gpus_per_worker:
        total = gpu_memory()
        together = max(1, int(1 / config.launch.gpus_per_worker))
        return "" if total is None else _compare(per_worker * min(together, workers), total, "a worker", "a GPU")
    import psutil

    who = f"{workers} worker{'s' if workers > 1 else ''}"
    return _compare(per_worker * workers, psutil.virtual_memory().total, who, "this machine")


def _compare(need: int, total: int, who: str, where: str) -> str:
    in_all, there_is = sizes(need, total)
    amount = unit(need, total)
    if need > total:
        raise ResourceError(
            f"the states of {who} need {in_all} {amount}; {where} has {there_is} {amount}",
            "weights, gradients, optimizer and averages that fit into memory (activations come on top)",
            "give `generative plan` the same configuration: it tells which settings fit; or take a larger machine "
            "(launch.address)",
        )
    return f"fits (states {in_all} of {there_is} {amount})"


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU of this machine; None where none can be asked.

    Asked of the driver's own tool: through torch, this process would take memory of the GPU for itself.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10)
        found = [int(line) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return min(found) * 2**20 if found else None
