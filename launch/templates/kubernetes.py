"""A run as a KubeRay RayJob: a Ray cluster for the time of the run, and a submitter that starts the driver."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from launch.cluster_schema import KubernetesCluster, PodSize
from launch.ray_cluster import NO_IDLE_WORKERS
from launch.templates.job import Job

USER = 1000
"""User and group of the image; the volume is made writable for it."""

CONFIG_FOLDER = "/etc/generative"
CONFIG_FILE = "config.yaml"

Manifest = dict[str, Any]


def to_yaml(*manifests: Manifest) -> str:
    """Manifests as one YAML text."""
    options: Any = {"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, "width": 4096}
    texts = [yaml.dump(manifest, **options) for manifest in manifests]
    return "---\n".join(texts)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines line by line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def render(job: Job, cluster: KubernetesCluster) -> list[Manifest]:
    """What is applied: the RayJob, and the configuration where it is no file of the image."""
    manifests = [ray_job(job, cluster)]
    if job.text is not None:
        metadata = _metadata(job, cluster)
        data = {CONFIG_FILE: job.text}
        manifests.insert(0, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return manifests


def ray_job(job: Job, cluster: KubernetesCluster) -> Manifest:
    """The RayJob. A driver that fails, is lost or is interrupted is started again on a new cluster and goes on."""
    command = job.train(cluster, "launch.backend=ray", "launch.address=auto")
    assert all(map(plain, command)), command
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(job, cluster),
        "spec": {
            "entrypoint": " ".join(command),
            "runtimeEnvYAML": yaml.safe_dump({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(cluster.grace_seconds)}}),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": cluster.keep_seconds,
            "backoffLimit": cluster.restarts,
            "submitterConfig": {"backoffLimit": 2},
            "submitterPodTemplate": {"spec": _submitter(cluster)},
            "rayClusterSpec": cluster_spec(cluster, job),
        },
    }


def ray_cluster(name: str, cluster: KubernetesCluster) -> Manifest:
    """A RayCluster that stays, for `generative submit --backend ray`."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": cluster_spec(cluster, None),
    }


def plain(word: str) -> bool:
    """Whether a word of the command means itself. Two shells and Ray's own quoting lie between it and the driver."""
    return re.fullmatch(r"[A-Za-z0-9_./:=,+@%-]+", word) is not None


def folder(cluster: KubernetesCluster) -> str:
    """Folder that jobs run in."""
    return cluster.directory or cluster.storage.path


def cluster_spec(cluster: KubernetesCluster, job: Job | None) -> Manifest:
    """Head and workers. The operator makes the cluster's token and gives it to all pods."""
    head = _pod("ray-head", cluster, cluster.head, job)
    # Losing the head ends the run: it saves first. A lost worker is replaced by Ray.
    if job is not None:
        head["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": _save(job, cluster.grace_seconds)}}}
    worker = _pod("ray-worker", cluster, cluster.node, job)
    if cluster.node_selector:
        worker["nodeSelector"] = dict(cluster.node_selector)
    return {
        "rayVersion": cluster.ray_version,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            # No workers beside the driver.
            "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
            "template": {"spec": head},
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": cluster.nodes,
                "minReplicas": cluster.nodes,
                "maxReplicas": cluster.nodes,
                "rayStartParams": {"num-cpus": str(cluster.node.cpus), "num-gpus": str(cluster.node.gpus)},
                "template": {"spec": worker},
            }
        ],
    }


def _metadata(job: Job, cluster: KubernetesCluster) -> Manifest:
    annotations = {"generative/run": job.run, "generative/run-dir": job.folder}
    return {"name": job.id, "namespace": cluster.namespace, "annotations": annotations}


def _pod(name: str, cluster: KubernetesCluster, size: PodSize, job: Job | None) -> Manifest:
    mounts = [{"name": "runs", "mountPath": cluster.storage.path}, {"name": "shm", "mountPath": "/dev/shm"}]
    volumes: list[Manifest] = [
        {"name": "runs", "persistentVolumeClaim": {"claimName": cluster.storage.claim}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if job is not None and job.text is not None:
        mounts.append({"name": "config", "mountPath": CONFIG_FOLDER})
        volumes.append({"name": "config", "configMap": {"name": job.id}})
    container = _container(name, cluster, size) | {"volumeMounts": mounts}
    return {
        "terminationGracePeriodSeconds": cluster.grace_seconds + 30,
        "automountServiceAccountToken": False,
        "securityContext": _security(),
        "containers": [container],
        "volumes": volumes,
    }


def _submitter(cluster: KubernetesCluster) -> Manifest:
    """The pod that hands the job to the cluster and shows its log."""
    container = _container("submitter", cluster, PodSize(cpus=1, memory="1Gi"))
    return {"restartPolicy": "Never", "securityContext": _security(), "containers": [container]}


def _container(name: str, cluster: KubernetesCluster, size: PodSize) -> Manifest:
    resources: Manifest = {"cpu": str(size.cpus), "memory": size.memory}
    if size.gpus:
        resources["nvidia.com/gpu"] = str(size.gpus)
    return {
        "name": name,
        "image": cluster.image,
        "imagePullPolicy": cluster.pull_policy,
        "workingDir": folder(cluster),
        "env": _environment(cluster),
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _environment(cluster: KubernetesCluster) -> list[Manifest]:
    values = {"RAY_USAGE_STATS_ENABLED": "0", **NO_IDLE_WORKERS, **cluster.environment}
    plain: list[Manifest] = [{"name": name, "value": value} for name, value in values.items()]
    for name, reference in cluster.secrets.items():
        secret, key = reference.split("/")
        plain.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return plain


def _security() -> Manifest:
    return {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}


def _save(job: Job, seconds: int) -> list[str]:
    """Asks the run to save and leave, and waits for that. outcome.json is written last; a run that has ended has it."""
    run = shlex.quote(job.folder)
    wait = f"for _ in $(seq {seconds}); do [ -e {run}/outcome.json ] && exit 0; sleep 1; done"
    return ["/bin/sh", "-c", f"[ -e {run}/outcome.json ] || touch {run}/stop; {wait}"]
