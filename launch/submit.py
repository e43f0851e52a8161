"""`generative submit`: check a run, make a job of it, and hand the job to Ray, Slurm, Kubernetes or torchrun."""

from __future__ import annotations

import json
import os
import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from generative.errors import ConfigError, ResourceError
from launch.cluster_schema import Cluster, KubernetesCluster, RayCluster, SlurmCluster, TorchrunCluster
from launch.clusters import load_cluster
from launch.templates import kubernetes, ray_job, slurm, torchrun
from launch.templates.job import Job, shell

if TYPE_CHECKING:
    from launch.schema import RunConfig

HERE = ("cluster=", "cluster.", "~cluster.")
"""How the words begin that are about the cluster, not the run."""


@dataclass(frozen=True)
class Submission:
    """A run and where it goes.

    Args:
        config: of the run, checked.
        job: what is sent.
        cluster: where to.
        directory: folder that the job runs in.
        words: of the command line that name the cluster, for advice.
    """

    config: RunConfig
    job: Job
    cluster: Cluster
    directory: str
    words: str


def split(words: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """Overrides of the run, name of the cluster, overrides of the cluster."""
    names = [word.removeprefix("cluster=") for word in words if word.startswith("cluster=")]
    overrides = [word for word in words if word.startswith(("cluster.", "~cluster."))]
    return [word for word in words if not word.startswith(HERE)], names[-1] if names else None, overrides


def prepare(name: str, words: Sequence[str], backend: str | None) -> Submission:
    """Check everything that can be known here.

    Args:
        name: CONFIG.
        words: `a.b=c`, `cluster=NAME`, `cluster.key=value`.
        backend: of the cluster; None: whichever it is.

    Raises:
        GenerativeError: a wrong configuration, an unknown cluster, more workers than it has room for, a run folder that
            its nodes do not see, or that belongs to another run.
    """
    from launch.schema import load_run_config

    overrides, cluster_name, cluster_overrides = split(words)
    config = load_run_config(name, overrides)
    cluster = load_cluster(cluster_name, backend, cluster_overrides)
    directory = cluster.directory or os.getcwd()
    if isinstance(cluster, KubernetesCluster):
        directory = kubernetes.folder(cluster)
    folder = posixpath.normpath(posixpath.join(directory, config.folder))
    job = _job(name, overrides, config, cluster, folder)
    _check_room(config, cluster)
    _check_folder(config, cluster, folder)
    named = [f"cluster={cluster_name}"] if cluster_name else []
    place = [word for word in cluster_overrides if word.startswith(("cluster.address=", "cluster.auth="))]
    told = "".join(f" {shlex.quote(word)}" for word in (*named, *place))
    return Submission(config, job, cluster, directory, told)


def _job(name: str, overrides: Sequence[str], config: RunConfig, cluster: Cluster, folder: str) -> Job:
    """The run as the nodes are told it: named configurations by name, files by their path or their text."""
    from generative.config import config_folder, find_config, load_layers, validate
    from generative.config_text import write_text

    overrides = [word for word in overrides if not word.startswith("run.dir=")]
    parts = [(part, find_config(part)) for part in name.split("+")]
    pods = isinstance(cluster, KubernetesCluster)
    known = all(path.is_relative_to(config_folder()) for _, path in parts)
    if known and (not pods or all(map(kubernetes.plain, overrides))):
        return Job(config.name, folder, name, tuple(overrides), config.launch)
    if pods:
        # As it was given, not as it was resolved here: relative paths mean the folder that the job runs in.
        layers = load_layers(name, overrides)
        validate(layers, type(config))  # drops the keys of a choice that a later layer took back
        text = write_text({**layers.values, "name": config.name})
        return Job(config.name, folder, f"{kubernetes.CONFIG_FOLDER}/{kubernetes.CONFIG_FILE}", (), config.launch, text)
    files = [part if path.is_relative_to(config_folder()) else str(path.absolute()) for part, path in parts]
    if isinstance(cluster, RayCluster) and cluster.upload:
        files = [part for part, _ in parts]
    return Job(config.name, folder, "+".join(files), (f"name={config.name}", *overrides), config.launch)


def _check_room(config: RunConfig, cluster: Cluster) -> None:
    """All workers fit into what the job asks for."""
    from launch.placement import check_resources

    if isinstance(cluster, TorchrunCluster):
        torchrun.check_meeting_point(cluster)
        torchrun.processes(config.launch, cluster.nodes, cluster.processes_per_node)
    elif isinstance(cluster, SlurmCluster) and cluster.launcher == "torchrun":
        torchrun.processes(config.launch, cluster.nodes)
    if isinstance(cluster, SlurmCluster):
        size, keys = (
            {"CPU": cluster.cpus_per_node, "GPU": cluster.gpus_per_node},
            "cluster.cpus_per_node or cluster.gpus_per_node",
        )
    elif isinstance(cluster, KubernetesCluster):
        size, keys = {"CPU": cluster.node.cpus, "GPU": cluster.node.gpus}, "cluster.node.cpus or cluster.node.gpus"
    else:
        return
    node = {kind: float(count) for kind, count in size.items()}
    try:
        nodes = {f"node {number}": node for number in range(cluster.nodes)}
        check_resources(config.launch, nodes, f"the job (cluster.nodes={cluster.nodes})")
    except ResourceError as error:
        remedy = f"raise cluster.nodes, {keys}, or lower launch.workers"
        raise ResourceError(error.problem, error.expected, f"{remedy} (results stay the same)") from error


def _check_folder(config: RunConfig, cluster: Cluster, folder: str) -> None:
    """The run folder can be the run's, as far as it can be seen from here."""
    if isinstance(cluster, KubernetesCluster):
        if not folder.startswith(f"{posixpath.normpath(cluster.storage.path)}/"):
            raise ConfigError(
                f"run.dir={folder} is not below cluster.storage.path={cluster.storage.path}: it would end with its pod",
                "a run folder on the volume that all pods see",
                "give a relative run.dir, or one below cluster.storage.path",
            )
        if not kubernetes.plain(folder):
            raise ConfigError(
                f"run.dir={folder} has characters that do not reach the driver on Kubernetes unchanged",
                "letters, digits and any of _ . / : = , + @ % -",
                "give another run.dir",
            )
        return
    if Path(folder).is_dir():
        from launch.folder import check_same_run

        check_same_run(Path(folder), config.folder, config)


def text(submission: Submission) -> str:
    """The job exactly as it is handed over."""
    job, cluster = submission.job, submission.cluster
    if isinstance(cluster, RayCluster):
        return json.dumps(ray_job.render(job, cluster, job.id, submission.directory), indent=1)
    if isinstance(cluster, SlurmCluster):
        return slurm.render(job, cluster, submission.directory)
    if isinstance(cluster, KubernetesCluster):
        return kubernetes.to_yaml(*kubernetes.render(job, cluster))
    assert isinstance(cluster, TorchrunCluster)
    from launch.sending import torchrun_words

    variables = [f"{name}={shlex.quote(value)}" for name, value in torchrun.environment(cluster).items()]
    lines = [" ".join([*variables, shell(torchrun_words(job, cluster, node))]) for node in range(cluster.nodes)]
    return (
        lines[0] if len(lines) == 1 else "\n".join(f"# machine {node + 1}\n{line}" for node, line in enumerate(lines))
    )


def submit(name: str, words: Sequence[str], backend: str | None, dry_run: bool, wait: bool) -> int:
    """Send a run to a cluster.

    Args:
        name, words, backend: as for `prepare`.
        dry_run: only print what would be sent.
        wait: follow the run where that is possible.

    Returns:
        Exit code: 0 when it is sent (or complete, where it was followed), else as of `generative train`.
    """
    from launch import sending

    submission = prepare(name, words, backend)
    if dry_run:
        typer.echo(text(submission).rstrip("\n"))
        return 0
    cluster = submission.cluster
    if isinstance(cluster, RayCluster):
        return sending.to_ray(submission, cluster, wait)
    if isinstance(cluster, SlurmCluster):
        return sending.to_slurm(submission.job, text(submission))
    if isinstance(cluster, KubernetesCluster):
        return sending.to_kubernetes(submission.job, cluster, text(submission))
    assert isinstance(cluster, TorchrunCluster)
    return sending.to_torchrun(submission.job, cluster, text(submission))
