"""Ray without the processes that no run of ours needs.

Left alone, Ray Train starts a process each for its controller, for collectives that none of our workers takes part in
(`ray.train.report`), for what is left behind where the controller dies and the driver lives, for datasets, and for
asking an autoscaler for nodes. All of them import for seconds what the driver has imported already, some before and
some beside the workers, at every start and after every loss. Here the controller runs in the driver's process, and a
group starts no process but its workers.

A cluster of this machine goes without a dashboard (Ray starts a process for it even where it is told not to, and waits
for it), an autoscaler, and a log that follows the workers' output, which goes to the run folder. The agent of a node,
which cannot be left out, takes any free port: Ray's own is the same for all clusters, and the second one on a machine
tries for three seconds to get it. Ray Data goes without the process that keeps statistics for the dashboard.

None of this has a public door. Where a version of Ray keeps it elsewhere, runs start with all its parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NEEDLESS = ("PlacementGroupCleanerCallback", "DatasetsCallback")
"""Callbacks of Ray Train that start a process each."""

AGENT_PORT = "dashboard_agent_listen_port"
"""What Ray calls the port of each node's agent; 0 is any free one."""

Replaced = tuple[tuple[Any, str, Any], ...]
"""(owner, name, value) of what is to be something else for a while."""


@dataclass(frozen=True)
class Slim:
    """The doors of this Ray Train.

    Args:
        controller: class of a controller for the driver's process, whose workers need no environment of their own: they
            have the cluster's, or the job's.
        policy: class of a scaling policy that asks nobody for room. Groups go to nodes that have it
            (`ray_cluster.find_seats`), so an autoscaler could add nothing.
        replaced: while the controller runs.
    """

    controller: Any
    policy: Any
    replaced: Replaced

    def run(self, scaling: Any, parts: dict[str, Any]) -> Any:
        """What Ray's own trainer has of its controller: the result of one group.

        Args:
            scaling: how many workers, and of which size.
            parts: what Ray makes controllers of.
        """
        with _instead(self.replaced):
            controller = self.controller(**(parts | {"scaling_policy": self.policy(scaling)}))
            asyncio.run(controller.run())
            return controller.get_result()


@functools.cache
def slim() -> Slim | None:
    """None where this Ray has other doors."""
    try:
        return _doors()
    except (ImportError, AttributeError):
        return None


def _doors() -> Slim:
    from ray.runtime_context import RuntimeContext
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group import state, worker_group

    from launch.ray_seat import TrainWorker

    class Group(worker_group.WorkerGroup):  # type: ignore[misc]
        _worker_cls = TrainWorker

        @staticmethod
        def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
            return custom_runtime_env

    class Controller(TrainController):  # type: ignore[misc]
        worker_group_cls = Group

    class Unreserved(FixedScalingPolicy):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: Any) -> None:
            """Nothing is reserved, so nothing has to be given back either."""

        def _maybe_send_resource_request(self) -> None:
            pass

    replaced = (
        (worker_group, "SynchronizationActor", _Nobody()),
        (state, "_shutdown_sync_actor", lambda actor: None),
        # None of our workers has a hook for its end, and one that is frozen would be waited for 5 s.
        (state, "_shutdown_workers", functools.partial(state._shutdown_workers, patience_s=0)),
        (RuntimeContext, "current_actor", None),  # the workers are told who their controller is
    )
    group = worker_group.WorkerGroup
    used = ((TrainController, "worker_group_cls"), (group, "_get_worker_runtime_env"), (group, "_worker_cls"))
    for owner, name in (*used, *((owner, name) for owner, name, _ in replaced)):
        inspect.getattr_static(owner, name)
    return Slim(Controller, Unreserved, replaced)


@contextlib.contextmanager
def bare_head() -> Iterator[None]:
    """A cluster that is started inside has no process for a dashboard, an autoscaler or the workers' output.

    Its agents have ports of their own.
    """
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    needless = [name for name in ("start_api_server", "start_monitor", "start_log_monitor") if hasattr(Node, name)]
    replaced: Replaced = tuple((Node, name, lambda node, **options: None) for name in needless)
    make = RayParams.__init__
    if AGENT_PORT in inspect.signature(make).parameters:
        replaced += ((RayParams, "__init__", functools.partialmethod(make, **{AGENT_PORT: 0})),)
    with _instead(replaced):
        yield


@contextlib.contextmanager
def bare_data() -> Iterator[None]:
    """Ray Data starts no process for its statistics inside."""
    from ray.data._internal import stats

    known = hasattr(stats, "get_or_create_stats_actor")
    with _instead(((stats, "get_or_create_stats_actor", _Nobody),) if known else ()):
        yield


class _Nobody:
    """In the place of an actor (or its class) whose answers nobody needs: any method of it gives a new name."""

    def __getattr__(self, name: str) -> _Nobody:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def options(self, **options: Any) -> _Nobody:
        """As of an actor's class."""
        return self

    def remote(self, *arguments: Any, **options: Any) -> Any:
        """As of an actor's method."""
        import ray

        return ray.put(uuid.uuid4().hex)


@contextlib.contextmanager
def _instead(replaced: Replaced) -> Iterator[None]:
    """Each `owner.name` is `value` inside."""
    before = [(owner, name, inspect.getattr_static(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
