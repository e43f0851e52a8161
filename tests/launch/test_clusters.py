"""Descriptions of clusters: found like other configurations, checked, and told about in the same way."""

from __future__ import annotations

import pytest

from generative.config import config_folder
from generative.errors import ConfigError
from launch.clusters import BACKENDS, DEFAULTS, load_cluster


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_backend_has_a_default_cluster_that_begins_with_its_command(backend):
    assert load_cluster(None, backend).name == backend
    text = (config_folder() / f"cluster/{DEFAULTS[backend]}.yaml").read_text()
    assert text.startswith("# ")
    assert f"cluster={DEFAULTS[backend]}" in text.partition("cluster:\n")[0]


def test_named_cluster_own_file_and_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("extends: cluster/our-slurm\ncluster: {nodes: 7}\n")
    for name in ("mine", "mine.yaml", str(tmp_path / "mine.yaml")):
        cluster = load_cluster(name, None, ["cluster.partition=long"])
        assert (cluster.nodes, cluster.partition, cluster.gpus_per_node) == (7, "long", 4)
    assert load_cluster("cluster/our-slurm", "slurm") == load_cluster("our-slurm", None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("our-slrm", None), "Did you mean cluster/our-slurm"),
        ((None, "slrum"), "Did you mean slurm"),
        (("our-slurm", "ray"), "not of --backend ray"),
        (("our-slurm", None, ["cluster.tim=1"]), "Did you mean cluster.time"),
        (("our-slurm", None, ["cluster.time=1m"]), "cluster.time"),
        (("our-slurm", None, ["cluster.time=2:00", "cluster.notice_seconds=300"]), "cluster.notice_seconds"),
        (("our-slurm", None, ["cluster.venv=/v", "cluster.container=c.sif"]), "cluster.container=c.sif"),
        (("our-slurm", None, ['cluster.account="a\\nb"']), "cluster.account"),
        (("our-ray", None, ["cluster.address=10.0.0.1:8265"]), "cluster.address"),
        (("our-ray", None, ["cluster.upload=true", "cluster.directory=/d"]), "cluster.directory=/d"),
        (("our-kubernetes", None, ["cluster.secrets.KEY=value-of-a-secret"]), "cluster.secrets.KEY"),
        (("masked_diffusion/quickstart", None), "cluster/masked_diffusion/quickstart"),
    ],
)
def test_mistakes_are_told_with_key_and_remedy(arguments, told, tmp_path):
    with pytest.raises(ConfigError) as error:
        load_cluster(*arguments)
    assert told in str(error.value)
    assert error.value.remedy or "to fix" in error.value.problem


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("36:00:00", 129600),
        ("'36:00:00'", 129600),
        ("30:00", 1800),
        ("'30:00'", 1800),
        ("1-12", 129600),
        ("7200", 7200),
    ],
)
def test_time_limit_means_the_same_with_and_without_quotes(typed, seconds):
    cluster = load_cluster("our-slurm", None, [f"cluster.time={typed}"])
    assert cluster.seconds == seconds


def test_a_file_that_is_no_cluster_is_told_with_its_section_and_line(tmp_path):
    (tmp_path / "run.yaml").write_text("cluster: {name: ray}\ntrain: {steps: 3}\n")
    with pytest.raises(ConfigError, match=r"section train \(.*run.yaml line 2\)"):
        load_cluster(str(tmp_path / "run.yaml"), None)


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "db_password"])
def test_secrets_are_refused_and_not_repeated(name):
    with pytest.raises(ConfigError) as error:
        load_cluster("our-ray", None, [f"cluster.environment.{name}=hunter2hunter2"])
    assert name in error.value.problem
    assert "hunter2" not in str(error.value)
