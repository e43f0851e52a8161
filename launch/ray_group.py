"""One group of workers under Ray Train. Imports Ray, so it is imported only where there is a cluster.

It imports no torch, as Ray's own trainer and backend for torch would: the driver moves no tensor, and would wait two
seconds for it.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from launch.placement import resources_per_worker
from launch.ray_slim import NEEDLESS, slim
from launch.ray_worker import join_group, meeting_place, on_own_device, prepare_process, train_worker

if TYPE_CHECKING:
    from launch import schema

NODE_LABEL = "ray.io/node-id"
"""Ray gives each node a label of this name."""


class _GroupBackend(Backend):  # type: ignore[misc]
    """Prepares each worker's process, then makes the process group."""

    share_cuda_visible_devices = True
    """Workers on a node see each other's GPUs, as nccl's fast ways between them want it."""

    def on_start(self, worker_group: Any, backend_config: _GroupConfig) -> None:
        worker_group.execute(prepare_process, backend_config.timeout_s)
        place = worker_group.execute_single(0, meeting_place)
        worker_group.execute(join_group, place, backend_config.backend, backend_config.timeout_s)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """The processes are ended; asking them to leave the group first would wait for those that cannot answer."""


@dataclass
class _GroupConfig(BackendConfig):  # type: ignore[misc]
    """Of the process group: torch's name of its backend, and the seconds that a collective may take."""

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type[_GroupBackend]:
        return _GroupBackend

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[object]]:
        return on_own_device


class _Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Without the processes that Ray Train starts beside the workers (`launch.ray_slim`)."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """None: Ray's own would abort the workers at Ctrl-C, while they save because the command asked them to."""

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [each for each in found if slim() is None or type(each).__name__ not in NEEDLESS]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if (doors := slim()) is None:
            return super()._initialize_and_run_controller(**parts)
        return doors.run(self.scaling_config, parts)


def fit(config: schema.RunConfig, folder: Path, work: bytes, nodes: Sequence[str], attempt: int) -> None:
    """Let one group train until it ends or fails; it is never started again by Ray itself.

    Args:
        config: of the run.
        folder: the run folder.
        work: what each worker does, pickled.
        nodes: id of the node of each worker.
        attempt: number of this group, from 1.

    Raises:
        Exception: Ray's; `worker_failures` has the error of each rank where workers failed.
    """
    launch = config.launch
    trainer = _Trainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "folder": str(folder),
            "directory": os.getcwd(),
            "work": work,
            "attempt": attempt,
            "driver": f"{socket.gethostname()} {os.getpid()}",
        },
        scaling_config=ScalingConfig(
            num_workers=len(nodes),
            use_gpu=bool(launch.gpus_per_worker),
            resources_per_worker=resources_per_worker(launch),
            label_selector=_pinned(nodes) if launch.nodes is not None else None,
        ),
        backend_config=_GroupConfig("nccl" if launch.gpus_per_worker else "gloo", config.parallel.timeout_seconds),
        run_config=RunConfig(
            name=f"attempt_{attempt}",
            storage_path=str(folder / "logs" / "ray_train"),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    trainer.fit()


def _pinned(nodes: Sequence[str]) -> list[dict[str, str]]:
    """Labels that put each worker on its node."""
    return [{NODE_LABEL: name} for name, count in Counter(nodes).items() for _ in range(count)]
