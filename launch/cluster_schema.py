"""What describes a cluster: the section `cluster` of the files in configs/cluster/, one model for each backend."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination

Port = Annotated[int, Field(ge=1024, le=65535)]
OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
Environment = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]
SECRETS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL")
"""Parts of the names of variables whose values may not be written into a job."""


def _clock(value: Any) -> Any:
    """YAML reads 24:00:00 without quotes as 86400, the same time in seconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value // 3600}:{value // 60 % 60:02d}:{value % 60:02d}"
    return value


TimeLimit = Annotated[str, BeforeValidator(_clock), Field(pattern=r"^(\d+-\d{1,2}(:\d{2}){0,2}|\d+:\d{2}(:\d{2})?)$")]


class Cluster(Config):
    """What all clusters have."""

    command: OneLine = "generative"
    """How the nodes call this program: one or several words."""
    directory: str | None = Field(default=None, pattern="^/")
    """Folder, seen by all nodes, that relative paths of the configuration mean; null: the one `submit` is given in."""
    environment: Environment = {}
    """Environment variables of the job. No secrets: they would be readable in the job."""

    @model_validator(mode="after")
    def _no_secrets(self) -> Cluster:
        for name in self.environment:
            if any(part in name.upper() for part in SECRETS):
                raise combination(
                    f"cluster.environment.{name}: looks like a secret",
                    "secrets that stay in the environment of the nodes, or in the cluster's own store for them",
                    f"remove {name} here and set it on the nodes (Kubernetes: cluster.secrets; Slurm: export it)",
                )
        return self


class RayCluster(Cluster):
    """A Ray cluster that is already there; runs are sent to it as Ray Jobs."""

    name: Literal["ray"]
    address: str = Field(default="http://127.0.0.1:8265", pattern=r"^https?://[^/\s]+$")
    """The cluster's dashboard, which answers for jobs. RAY_ADDRESS and RAY_API_SERVER_ADDRESS are not looked at."""
    auth: Literal["token", "disabled"] = "token"
    """token: with the secret in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. disabled: throw-away ones."""
    upload: bool = False
    """Send the files of this folder (without those that .gitignore names) along and run in a copy of them."""
    stop_seconds: PositiveInt = 120
    """How long a stopped job may take to save a checkpoint before it is killed (Ray's own limit is 3 s)."""

    @model_validator(mode="after")
    def _one_folder(self) -> RayCluster:
        if self.upload and self.directory:
            raise combination(
                f"cluster.upload=true runs in a copy of this folder, not in cluster.directory={self.directory}",
                "one of the two",
                "leave cluster.directory out, or cluster.upload",
            )
        return self


class SlurmCluster(Cluster):
    """Nodes that Slurm gives for a time. One job is one run; at its time limit it saves and queues again."""

    name: Literal["slurm"]
    partition: OneLine | None = None
    """Slurm's partition; null: its default."""
    account: OneLine | None = None
    """Account that pays; null: your default."""
    time: TimeLimit = "24:00:00"
    """Time limit of one job, [days-]hours:minutes:seconds, or seconds. A longer run is queued again, see `requeue`."""
    nodes: PositiveInt = 1
    """Nodes of the job."""
    cpus_per_node: PositiveInt = 8
    """Cores of each node that the job gets."""
    gpus_per_node: NonNegativeInt = 0
    """GPUs of each node that the job gets."""
    memory_per_node: str | None = Field(default=None, pattern=r"^\d+[KMGT]?$")
    """Memory of each node that the job gets, say 64G; null: the partition's default."""
    options: tuple[Annotated[str, Field(pattern=r"^--[a-z][^\x00-\x20]*$")], ...] = ()
    """Further options of sbatch, say --exclusive or --constraint=a100."""
    launcher: Literal["ray", "torchrun"] = "ray"
    """ray: a Ray cluster for the time of the job. torchrun: one process group started by torchrun on each node."""
    modules: tuple[OneLine, ...] = ()
    """Environment modules to load."""
    venv: str | None = None
    """Virtual environment to activate, seen by all nodes."""
    container: OneLine | None = None
    """Apptainer image (file or URI) to run in, instead of a virtual environment."""
    interface: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.:-]+$")
    """Network interface between the nodes, say ib0; null: the one of the host name."""
    port: Port | None = None
    """Port of the head; null: one that follows from the job's number."""
    requeue: NonNegativeInt = 20
    """How often the job is queued again when its time is up; 0: never."""
    notice_seconds: Annotated[int, Field(ge=30)] = 180
    """How long before the time limit the run is told to save and leave."""
    start_seconds: PositiveInt = 300
    """How long to wait for all nodes of the Ray cluster."""

    @model_validator(mode="after")
    def _time_for_notice(self) -> SlurmCluster:
        if self.seconds <= self.notice_seconds:
            raise combination(
                f"cluster.notice_seconds={self.notice_seconds} is no part of cluster.time={self.time}",
                "a warning some time after the start and before the end",
                "raise cluster.time, or lower cluster.notice_seconds",
            )
        return self

    @property
    def seconds(self) -> int:
        """The time limit, as Slurm reads it: minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash or len(parts) == 3:
            hours, minutes, seconds = [*parts, 0, 0][:3]
        else:
            hours, minutes, seconds = 0, *[*parts, 0][:2]
        return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds

    @model_validator(mode="after")
    def _one_environment(self) -> SlurmCluster:
        if self.venv and self.container:
            raise combination(
                f"cluster.venv={self.venv} and cluster.container={self.container} are both given",
                "one place that the program is installed in",
                "leave one of them out",
            )
        return self


class Storage(Config):
    """A volume that all pods of a job see."""

    claim: str = Field(default="generative-runs", pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    """PersistentVolumeClaim, ReadWriteMany."""
    path: str = Field(default="/mnt/generative", pattern="^/")
    """Where the pods have it. Run folders lie in it."""


class PodSize(Config):
    """What a pod asks for."""

    cpus: PositiveInt = 4
    """Cores."""
    memory: str = Field(default="8Gi", pattern=r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    """Memory."""
    gpus: NonNegativeInt = 0
    """GPUs (nvidia.com/gpu)."""


class KubernetesCluster(Cluster):
    """Kubernetes with the KubeRay operator (1.5.1 or newer): each run is a RayJob with a Ray cluster of its own."""

    name: Literal["kubernetes"]
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    """Namespace."""
    image: OneLine = "generative:cpu"
    """Image with this program, see docker/Dockerfile."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes fetch the image."""
    ray_version: str = Field(default="2.60.0", pattern=r"^\d+\.\d+\.\d+$")
    """Ray in the image; the operator must be told."""
    nodes: PositiveInt = 2
    """Worker pods. The head pod trains nothing."""
    node: PodSize = PodSize()
    """Size of a worker pod."""
    head: PodSize = PodSize(cpus=2, memory="4Gi")
    """Size of the head pod, where the driver runs."""
    storage: Storage = Storage()
    """Volume for runs and data."""
    node_selector: dict[str, str] = {}
    """Labels of nodes that worker pods may run on."""
    secrets: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    """Environment variables from Kubernetes Secrets: {WANDB_API_KEY: name-of-secret/key}."""
    restarts: NonNegativeInt = 3
    """How often a job whose driver or head was lost, or that was interrupted, is started again on a new Ray cluster."""
    grace_seconds: PositiveInt = 120
    """How long a pod that must leave may take to save a checkpoint."""
    keep_seconds: NonNegativeInt = 3600
    """How long a finished job stays listed. Its pods go at once."""

    @model_validator(mode="after")
    def _secret_references(self) -> KubernetesCluster:
        for name, reference in self.secrets.items():
            if reference.count("/") != 1 or not all(reference.split("/")):
                raise combination(
                    f"cluster.secrets.{name} is no reference to a Secret (its value is not shown)",
                    "name-of-secret/key",
                    "put the value into a Secret (`kubectl create secret generic`) and give its name and key here",
                )
        return self


class TorchrunCluster(Cluster):
    """Machines that you start the processes on yourself, with torchrun. On one node `submit` starts them."""

    name: Literal["torchrun"]
    nodes: PositiveInt = 1
    """Machines."""
    processes_per_node: PositiveInt | None = None
    """Workers on each; null: launch.workers / nodes."""
    rendezvous: str = Field(default="127.0.0.1:29500", pattern=r"^[^\s:]+:\d+$")
    """host:port on the first machine, where all of them meet. With one node any free port is taken."""
    interface: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.:-]+$")
    """Network interface between the machines, say eth0; null: the one of the host name."""


AnyCluster = Annotated[RayCluster | SlurmCluster | KubernetesCluster | TorchrunCluster, Field(discriminator="name")]


class ClusterFile(Config):
    """A file in configs/cluster/."""

    cluster: AnyCluster
    """The cluster that a run is sent to."""
