"""Where `generative submit` sends a run: typed descriptions of clusters, one YAML file each in configs/cluster/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generative.config import Layers, load_layers, validate
from generative.errors import ConfigError, suggestion
from launch.cluster_schema import ClusterFile, KubernetesCluster, RayCluster, SlurmCluster, TorchrunCluster

BACKENDS = ("ray", "slurm", "kubernetes", "torchrun")
DEFAULTS = {name: f"our-{name}" if name != "torchrun" else name for name in BACKENDS}
"""The description that `--backend` stands for where no cluster is named."""


def load_cluster(
    name: str | None, backend: str | None, overrides: Sequence[str] = ()
) -> RayCluster | SlurmCluster | KubernetesCluster | TorchrunCluster:
    """Find and check the description of a cluster.

    Args:
        name: in configs/cluster/, or a YAML file; None: the default one of the backend.
        backend: ray, slurm, kubernetes or torchrun; None: whatever the cluster is (ray where none is named).
        overrides: `cluster.key=value`.

    Raises:
        ConfigError: no such cluster, unknown or wrong keys, or a cluster of another backend.
    """
    if backend is not None and backend not in BACKENDS:
        raise ConfigError(
            f"--backend {backend}: there is no such backend{suggestion(backend, BACKENDS)}",
            f"one of {', '.join(BACKENDS)}",
            "correct --backend, or name a cluster (cluster=NAME)",
        )
    layers = _layers(name or DEFAULTS[backend or "ray"], overrides)
    cluster = validate(layers, ClusterFile).cluster
    if backend is not None and cluster.name != backend:
        raise ConfigError(
            f"cluster={name} is a cluster of the backend {cluster.name}, not of --backend {backend}",
            "a cluster and a backend that belong together",
            f"leave --backend out, or take cluster={DEFAULTS[backend]}",
        )
    return cluster


def _layers(name: str, overrides: Sequence[str]) -> Layers:
    own = Path(name).is_file() or Path(f"{name}.yaml").is_file()
    layers = load_layers(name if own else f"cluster/{name.removeprefix('cluster/')}", overrides)
    others = [key for key in layers.values if key != "cluster"]
    if others or not isinstance(layers.values.get("cluster"), Mapping):
        raise ConfigError(
            f"cluster={name}: {_seen(others)}{_where(layers, others)}",
            "a file with the one section cluster, as those in configs/cluster",
            "correct the file, or take another one (`generative config list` lists them)",
        )
    return layers


def _seen(others: Sequence[Any]) -> str:
    return f"has the section {others[0]}" if others else "has no section cluster"


def _where(layers: Layers, others: Sequence[Any]) -> str:
    origin = layers.origin((str(others[0]),)) if others else None
    return f" ({origin})" if origin else ""
