"""`python -m launch.templates.manifests FOLDER`: writes the examples in docker/ as the templates have them today."""

from __future__ import annotations

import sys
from pathlib import Path

from launch.cluster_schema import KubernetesCluster
from launch.clusters import load_cluster
from launch.submit import prepare, text
from launch.templates import kubernetes

RUN = "masked_diffusion/quickstart"

ABOUT_JOB = f"""\
# A run on Kubernetes with the KubeRay operator. From `generative submit {RUN}
# cluster=our-kubernetes --dry-run`; the same without --dry-run applies it.
#
#   kubectl apply -f docker/rayjob.yaml
#
# Trains on two worker pods, then removes them; the run is on the claim generative-runs.
"""
ABOUT_CLUSTER = """\
# A Ray cluster that stays, on Kubernetes with the KubeRay operator, from the templates of `generative submit`.
#
#   kubectl apply -f docker/raycluster.yaml
#   kubectl port-forward service/generative-head-svc 8265
#   RAY_AUTH_TOKEN=$(kubectl get secret generative -o jsonpath='{.data.auth_token}' | base64 -d) \\
#       generative submit masked_diffusion/quickstart --backend ray cluster.directory=/mnt/generative
#
# Shows the log of the run until it ends.
"""


def manifests() -> dict[str, str]:
    """Text of each file by its name."""
    cluster = load_cluster(None, "kubernetes")
    assert isinstance(cluster, KubernetesCluster)
    job = text(prepare(RUN, [], "kubernetes"))
    standing = kubernetes.to_yaml(kubernetes.ray_cluster("generative", cluster))
    return {"rayjob.yaml": ABOUT_JOB + job, "raycluster.yaml": ABOUT_CLUSTER + standing}


if __name__ == "__main__":
    for name, content in manifests().items():
        (Path(sys.argv[1]) / name).write_text(content, encoding="utf-8")
