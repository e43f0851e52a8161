"""One group of workers under Ray Train. Imports Ray, so it is imported only where there is a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend

from launch.placement import resources_per_worker
from launch.ray_worker import prepare_process, train_worker

if TYPE_CHECKING:
    from launch import schema

NODE_LABEL = "ray.io/node-id"
"""Ray gives each node a label of this name."""

NEEDLESS = ("PlacementGroupCleanerCallback", "DatasetsCallback")
"""Parts of Ray Train that start a process each, for what a local run has not: a cluster that outlives its driver (whose
resources must be freed), and Ray datasets."""


class _GroupBackend(_TorchBackend):  # type: ignore[misc]
    """Prepares each worker's process before the process group is made."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(prepare_process, backend_config.timeout_s)
        super().on_start(worker_group, backend_config)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """The processes are ended; asking them to leave the group first would wait for those that cannot answer."""


class _GroupConfig(TorchConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[_GroupBackend]:
        return _GroupBackend


class _Trainer(TorchTrainer):  # type: ignore[misc]
    def _register_sigint_handler(self, controller: Any) -> None:
        """None: Ray's own would abort the workers at Ctrl-C, while they save because the command asked them to."""


class _LocalTrainer(_Trainer):
    """Starts seconds sooner; a Ray that has no such doors starts with all its parts."""

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if type(c).__name__ not in NEEDLESS]

    def _initialize_and_run_controller(self, *rest: Any, **parts: Any) -> Any:
        if "scaling_policy" in parts:
            with contextlib.suppress(ImportError):
                parts["scaling_policy"] = _unreserved(self.scaling_config)
        return super()._initialize_and_run_controller(*rest, **parts)


def _unreserved(scaling: ScalingConfig) -> Any:
    """As many workers as were asked for; on a cluster that nobody else uses no actor need keep room for them.

    Raises:
        ImportError: this Ray keeps its policies elsewhere.
    """
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    class Unreserved(FixedScalingPolicy):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            """Nothing is reserved, so nothing has to be given back either."""

        def _maybe_send_resource_request(self) -> None:
            pass

    return Unreserved(scaling)


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
    kind = _LocalTrainer if launch.address is None else _Trainer
    trainer = kind(
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
        torch_config=_GroupConfig(
            backend="nccl" if launch.gpus_per_worker else "gloo", timeout_s=config.parallel.timeout_seconds
        ),
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
