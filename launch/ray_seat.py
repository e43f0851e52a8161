"""The class of Ray Train's workers, in a module of its own: the first that a new process of Ray imports of ours.

The driver imports it too, and needs no torch.
"""

from __future__ import annotations

from launch.imports import uncollected

with uncollected():
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker


class TrainWorker(RayTrainWorker):  # type: ignore[misc]
    """Ray's own, in a process that has not looked for garbage while it imported Ray Train and torch."""

    def __init__(self) -> None:
        with uncollected():
            import ray.train.torch  # noqa: F401
        super().__init__()
