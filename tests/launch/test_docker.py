"""What lies in docker/: images that lint, a compose file that keeps to itself, manifests as the templates have them."""

from __future__ import annotations

import re
from pathlib import Path

import kuberay
import pytest
import yaml
from checkers import check

from generative.config import config_folder
from launch.clusters import load_cluster
from launch.templates.manifests import manifests

DOCKER = Path(__file__).parents[2] / "docker"


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_dockerfile_lints():
    check("hadolint", "-c", DOCKER / ".hadolint.yaml", DOCKER / "Dockerfile")


def test_image_is_pinned_installs_torch_first_and_runs_without_root():
    lines = (DOCKER / "Dockerfile").read_text()
    base = re.search(r"^ARG PYTHON=(\S+)$", lines, re.MULTILINE)
    assert base
    assert re.fullmatch(r"3\.\d+\.\d+-slim-[a-z]+", base[1])
    installs = re.findall(r"pip install (.*)", lines)
    assert [" -c constraints.txt " in f" {install}" for install in installs] == [True, True]
    assert installs[0].endswith(" torch")
    users = re.findall(r"^USER (\S+)$", lines, re.MULTILINE)
    assert users == ["1000"]
    assert lines.index("USER 1000") < lines.index("CMD")
    assert "wget" in lines, "KubeRay's probes need it"


def test_image_gets_every_file_that_the_install_needs_and_no_other():
    lines = (DOCKER / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*)$", lines, re.MULTILINE) for word in line.split()[:-1]}
    allowed = {line[1:] for line in (DOCKER.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert {"constraints.txt", "pyproject.toml", "configs", "generative", "evaluation", "launch"} <= copied


def test_compose_cluster_is_for_this_machine_and_needs_its_token():
    services = compose()["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)
    for service in services.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
        assert service["volumes"] == ["runs:/mnt/generative"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert compose()["secrets"]["ray_token"] == {"file": "./ray_token"}
    assert "docker/ray_token" in (DOCKER.parent / ".gitignore").read_text().splitlines()


def test_compose_refers_only_to_what_it_defines():
    file = compose()
    known = {"name", "services", "networks", "volumes", "secrets"}
    assert {key for key in file if not key.startswith("x-")} == known
    for service in file["services"].values():
        assert set(service["networks"]) <= set(file["networks"])
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(file["volumes"])
        assert set(service["secrets"]) <= set(file["secrets"])
        assert set(service.get("depends_on", {})) <= set(file["services"])
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_manifests_are_as_the_templates_have_them(name):
    again = "python -m launch.templates.manifests docker"
    assert (DOCKER / name).read_text() == manifests()[name], f"run `{again}`"


@pytest.mark.skipif(not kuberay.available(), reason=kuberay.MISSING)
@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml"])
def test_manifests_are_valid_for_kuberay(name):
    for manifest in yaml.safe_load_all((DOCKER / name).read_text()):
        assert kuberay.problems(manifest) == []


def test_image_has_the_ray_that_the_operator_is_told():
    pins = (config_folder().parent / "constraints.txt").read_text().splitlines()
    assert f"ray=={load_cluster(None, 'kubernetes').ray_version}" in pins
