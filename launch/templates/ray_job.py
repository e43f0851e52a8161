"""A run as a Ray Job."""

from __future__ import annotations

import shlex
from typing import Any

from launch.cluster_schema import RayCluster
from launch.templates.job import Job, shell

LEFT_OUT = [".git", ".venv", "runs", "build", "dist"]
"""Folders that do not travel with cluster.upload, besides what .gitignore names."""


def render(job: Job, cluster: RayCluster, submission_id: str, directory: str) -> dict[str, Any]:
    """The request to the Jobs API.

    Args:
        directory: folder of the nodes that the driver runs in (with cluster.upload it runs in a copy of this one).

    The driver joins the cluster that runs it. Ray kills a stopped job after 3 s, which is less than a checkpoint may
    take, unless the environment of the job's supervisor says otherwise.
    """
    command = shell(job.train(cluster, "launch.backend=ray", "launch.address=auto"))
    environment = {**cluster.environment, "RAY_JOB_STOP_WAIT_TIME_S": str(cluster.stop_seconds)}
    runtime: dict[str, Any] = {"env_vars": environment}
    if cluster.upload:
        runtime |= {"working_dir": ".", "excludes": LEFT_OUT}
    else:
        command = f"cd {shlex.quote(directory)} && exec {command}"
    return {
        "entrypoint": command,
        "submission_id": submission_id,
        "runtime_env": runtime,
        "metadata": {"run": job.run, "run_dir": job.folder},
    }
