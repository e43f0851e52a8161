"""What runs in Ray's processes: the train function of each worker, and what prepares its process."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from launch.imports import uncollected
from launch.interfaces import choose_interface
from launch.stopping import TERMINATED

WORKERS = "logs/workers.jsonl"
"""Which processes have worked on the run: {"rank", "pid", "host", "node", "driver", "attempt", "time"}."""


def prepare_process(timeout_seconds: int) -> None:
    """Before the process group: its network card, nccl's watchdog, and SIGTERM as a wish to save and leave.

    Runs in the main thread of the worker's process, the only one that may install handlers of signals.
    """
    import ray

    choose_interface(ray.get_runtime_context().gcs_address)
    # nccl: a collective that takes too long ends its process, within the same limit as gloo's.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    os.environ.setdefault("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", str(timeout_seconds))
    TERMINATED.clear()
    signal.signal(signal.SIGTERM, lambda number, frame: TERMINATED.set())


def meeting_place() -> tuple[str, int]:
    """Address and a free port of the node of rank 0, where the group's store is to be."""
    import ray

    host = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind(("", 0))
        return host, int(free.getsockname()[1])


def join_group(place: tuple[str, int], backend: str, timeout_seconds: int) -> None:
    """Make the process group of all workers; torch's, accelerate's and deepspeed's variables tell who this one is.

    Args:
        place: where rank 0 waits for the others.
        backend: torch's name of it.
        timeout_seconds: of a collective.
    """
    import ray.train
    from ray.train.torch import get_device
    from torch import distributed

    context = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": place[0],
        "MASTER_PORT": str(place[1]),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
        "ACCELERATE_TORCH_DEVICE": str(get_device()),
    }
    distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))


@contextlib.contextmanager
def on_own_device() -> Iterator[None]:
    """Around what a worker does: its GPU is the current one of the thread that trains."""
    import torch
    from ray.train.torch import get_device

    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    yield


def train_worker(settings: Mapping[str, Any]) -> None:
    """One rank. What it prints goes to <run folder>/logs/worker_RANK.log."""
    import ray.train

    context, folder = ray.train.get_context(), Path(settings["folder"])
    rank, world, attempt = context.get_world_rank(), context.get_world_size(), int(settings["attempt"])
    output_to(folder / "logs" / f"worker_{rank}.log")
    _sign(folder, rank, attempt, str(settings["driver"]))
    if os.path.isdir(settings["directory"]):
        os.chdir(settings["directory"])
    with uncollected():
        from launch.schema import schema_for

        config = schema_for(settings["config"]).model_validate(settings["config"])
        work = pickle.loads(settings["work"])  # of the command, which has started all these processes
    work(config, folder, rank=rank, world=world, attempt=attempt)


def output_to(path: Path) -> None:
    """Everything that this process prints goes to a file, tracebacks of native crashes included."""
    descriptors_to(path)
    faulthandler.enable(file=2)


def descriptors_to(path: Path) -> None:
    """What this process, its child processes and native code write to descriptors 1 and 2 is appended to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _sign(folder: Path, rank: int, attempt: int, driver: str) -> None:
    import ray

    from generative.errors import RunFolderError
    from generative.training.runfolder import append_line

    node = ray.get_runtime_context().get_node_id()
    who = {"rank": rank, "pid": os.getpid(), "host": socket.gethostname(), "node": node}
    with contextlib.suppress(RunFolderError):
        append_line(folder / WORKERS, who | {"driver": driver, "attempt": attempt, "time": time.time()})


def restarts(folder: Path) -> int:
    """Restarts of a group in the whole life of the run."""
    from generative.training.runfolder import read_lines

    return sum(event.get("kind") == "restart" for event in read_lines(folder / "events.jsonl"))
