"""Workers under Ray Train: restarted from the newest checkpoint when one is lost, up to launch.max_restarts times."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from generative.errors import GenerativeError
from launch import ray_cluster
from launch.console import Console, Follower
from launch.folder import read_json, record_event, update_status
from launch.ray_worker import describe, first_cause, restarts, train_worker
from launch.stopping import StopRequest, abandoned

if TYPE_CHECKING:
    from launch.run import Work
    from launch.schema import RunConfig

POLL_SECONDS = 0.2
QUIET_SECONDS = 5.0
"""After so long without a heartbeat of the workers the driver gives one itself: they are being started again."""


class WorkersError(GenerativeError):
    """The workers failed more often than launch.max_restarts allows."""

    exit_code = 1


class RayBackend:
    """One run on Ray. A thread of its own starts the cluster while the driver prepares, then waits for the workers.

    The cluster's processes are children of that thread and die with it, so that not even kill -9 of the driver leaves
    any behind. Signals stay with the main thread.
    """

    def __init__(self, config: RunConfig, folder: Path, work: Work, console: Console) -> None:
        ray_cluster.precheck(config.launch)
        self._config, self._folder, self._work, self._console = config, folder, work, console
        self._go, self._cancelled = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="ray", daemon=True)
        self._temporary = ray_cluster.temporary_folder()
        self._quiet = contextlib.ExitStack()

    def __enter__(self) -> RayBackend:
        self._quiet.enter_context(ray_cluster.ray_environment(self._config.launch.address is None))
        self._quiet.enter_context(ray_cluster.chatter_to(self._folder / "logs" / "ray.log"))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._cancelled.set()
        self._go.set()
        if error is not None and self._thread.is_alive():
            # Waiting for Ray to finish its start only to end it would keep the user from the message.
            abandoned.set()
        else:
            self._thread.join()
        failed = error is not None and not isinstance(error, KeyboardInterrupt)
        ray_cluster.remove_temporary(self._temporary, self._folder / "logs" / "ray_session" if failed else None)
        self._quiet.close()

    def run(self, follower: Follower, request: StopRequest) -> None:
        """Let the workers train, show how it goes, pass on requests to stop.

        Raises:
            ResourceError: not enough for all workers.
            WorkersError: they failed too often.
            KeyboardInterrupt: stopped at once, without waiting for a checkpoint.
        """
        self._go.set()
        patience, told = float(self._config.parallel.timeout_seconds), False
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            follower.poll()
            self._keep_alive()
            if not request.count:
                continue
            if request.count > 1 or not follower.started or request.waited() > patience:
                raise KeyboardInterrupt
            if not told:
                told = True
                self._console.line("stop", "saving at the next step (the same signal again stops at once)")
        if self._error is not None:
            raise self._error

    def _keep_alive(self) -> None:
        """A heartbeat for times without workers."""
        status = read_json(self._folder / "status.json")
        if time.time() - float(status.get("heartbeat") or 0) > QUIET_SECONDS and self._thread.is_alive():
            update_status(self._folder)

    def _main(self) -> None:
        try:
            self._fit()
        except BaseException as error:
            self._error = error
        finally:
            import ray

            ray.shutdown()

    def _fit(self) -> None:
        threading.Thread(target=_import_ray_train, name="import", daemon=True).start()
        ray_cluster.LOG.info("starting or joining the cluster")
        ray_cluster.connect(self._config.launch, self._temporary)
        ray_cluster.LOG.info("cluster is up")
        _import_ray_train()
        ray_cluster.LOG.info("Ray Train is imported")
        self._go.wait()
        if not self._cancelled.is_set():
            ray_cluster.LOG.info("preparation is done: starting the workers")
            try:
                _trainer(self._config, self._folder, self._work).fit()
            except Exception as error:
                raise self._explain(error) from error

    def _explain(self, error: Exception) -> GenerativeError:
        """What to tell about the error that ended the last group of workers."""
        limit = self._config.launch.max_restarts
        failures = getattr(error, "worker_failures", None) or {}
        rank, cause = first_cause(failures) if failures else (None, error)
        who = "a worker" if rank is None else f"worker {rank}"
        problem = f"the workers failed {limit + 1} time(s); the last time {who} {describe(cause)}"
        record_event(self._folder, "stop", problem)
        return WorkersError(
            problem,
            f"workers that live, or at most launch.max_restarts={limit} restarts",
            f"look at {self._config.folder}/logs/worker_errors.log, mend the cause, and give the same command again",
        )


def _import_ray_train() -> None:
    """Seconds of imports; done beside the start of the cluster."""
    importlib.import_module("ray.train.torch")


def _trainer(config: RunConfig, folder: Path, work: Work) -> Any:
    """The Ray trainer of a run."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    launch = config.launch
    resources = {"CPU": float(launch.cpus_per_worker)}
    if launch.gpus_per_worker:
        resources["GPU"] = launch.gpus_per_worker
    if launch.address is None:
        _start_coordinator()
    return _trainer_class(launch.address is None)(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "folder": str(folder),
            "directory": os.getcwd(),
            "work": work,
            "restarts": restarts(folder),
        },
        scaling_config=ScalingConfig(
            num_workers=launch.workers, use_gpu=bool(launch.gpus_per_worker), resources_per_worker=resources
        ),
        torch_config=TorchConfig(
            backend="nccl" if launch.gpus_per_worker else "gloo", timeout_s=config.parallel.timeout_seconds
        ),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(folder / "logs"),
            failure_config=FailureConfig(
                max_failures=launch.max_restarts, controller_failure_limit=launch.max_restarts
            ),
            callbacks=[_recorder(folder, launch.max_restarts)],
        ),
    )


NEEDLESS = ("PlacementGroupCleanerCallback", "DatasetsCallback")
"""Parts of Ray Train that start a process each, for what a local run has not: a cluster that outlives its driver (whose
resources must be freed), and Ray datasets."""


def _trainer_class(local: bool) -> Any:
    from ray.train.torch import TorchTrainer

    class LocalTrainer(TorchTrainer):  # type: ignore[misc]
        """Starts seconds sooner; a Ray that has no such door starts with all its parts."""

        def _create_default_callbacks(self) -> list[Any]:
            return [c for c in super()._create_default_callbacks() if type(c).__name__ not in NEEDLESS]

    return LocalTrainer if local else TorchTrainer


def _start_coordinator() -> None:
    """Starts an actor that Ray Train will wait for, two seconds early; a Ray that has no such door starts its own."""
    with contextlib.suppress(Exception):
        from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator

        default_autoscaling_coordinator.get_or_create_autoscaling_coordinator()


def _recorder(folder: Path, limit: int) -> Any:
    """The callback that notes each failure of a group in the run folder (it runs in Ray's controller process)."""
    from ray.train import UserCallback

    class Recorder(UserCallback):  # type: ignore[misc]
        failures = 0

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            from launch.ray_worker import record_failure

            self.failures += 1
            record_failure(folder, worker_exceptions, self.failures, limit)

    return Recorder()
