"""Jobs as text: what they mean to the systems that read them."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import kuberay
import pytest
import yaml
from checkers import check

from generative.config import load_layers
from generative.errors import ConfigError, GenerativeError, ResourceError
from launch.schema import load_run_config
from launch.submit import prepare, text

QUICK = "masked_diffusion/quickstart"
NASTY = "data.cache=/a b/$(touch x)'\";&"
"""A setting that every layer of quoting must bring through unchanged."""

SLURM = [
    [],
    ["cluster.launcher=torchrun"],
    ["cluster.gpus_per_node=4", "cluster.interface=ib0", "cluster.account=me", "cluster.modules=[cuda/12]"],
    ["cluster.venv=/my envs/a", "cluster.environment.A='x y'", "cluster.requeue=0", "cluster.options=[--exclusive]"],
    ["cluster.container=/images/g.sif", "cluster.launcher=torchrun", "cluster.gpus_per_node=2"],
]


def render(backend: str, *words: str, config: str = QUICK) -> str:
    return text(prepare(config, words, backend))


def options(script: str) -> dict[str, str]:
    """The #SBATCH options of a script, read as a shell would."""
    words = [
        shlex.split(line.removeprefix("#SBATCH "))[0] for line in script.splitlines() if line.startswith("#SBATCH")
    ]
    return {name.removeprefix("--"): value for name, _, value in (word.partition("=") for word in words)}


@pytest.mark.parametrize("words", SLURM)
def test_slurm_script_is_good_shell(words, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(render("slurm", *words, "run.dir=/runs/a 'run'", NASTY))
    subprocess.run(["bash", "-n", script], check=True)
    check("shellcheck", script)


def test_slurm_job_asks_for_what_the_cluster_says():
    script = render("slurm", "cluster.nodes=3", "cluster.account=me", "cluster.time=1-12", "run.dir=/runs/100% mine")
    asked = options(script)
    wanted = {"nodes": "3", "gpus-per-node": "4", "account": "me", "time": "1-12", "partition": "gpu"}
    assert asked.items() >= wanted.items()
    assert asked["signal"].startswith("B:USR1@")
    assert asked["output"] == "/runs/100%% mine/logs/slurm-%j.log"
    assert "requeue" in asked
    assert "no-requeue" in options(render("slurm", "cluster.requeue=0"))


def test_slurm_job_has_no_secret_in_it(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    assert "0123456789abcdef" not in render("slurm")


def test_ray_job_trains_the_same_run_on_the_cluster():
    request = json.loads(render("ray", NASTY, "run.dir=/runs/x", "cluster.directory=/the place"))
    cd, _, *words = shlex.split(request["entrypoint"].replace(" && exec ", " ; "))
    assert (cd, words[0]) == ("cd", ";")
    assert words[1:4] == ["generative", "train", QUICK]
    assert NASTY in words
    assert sum(word.startswith("run.dir=") for word in words) == 1
    assert words[-3:] == ["run.dir=/runs/x", "launch.backend=ray", "launch.address=auto"]
    assert int(request["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 30
    assert "working_dir" not in request["runtime_env"]
    assert json.loads(render("ray", "cluster.upload=true"))["runtime_env"]["working_dir"] == "."


def test_identity_of_a_job_follows_from_run_and_folder():
    first, same, other = (json.loads(render("ray", f"run.dir=/runs/{name}"))["submission_id"] for name in "aab")
    assert first == same != other
    assert first.startswith("masked-diffusion-quickstart-")
    long = prepare(
        "masked_diffusion/paper+sizes/170m", ["launch.gpus_per_worker=0", "name=" + "Very/Long_" * 20], "kubernetes"
    )
    assert len(long.job.id) <= 47, "KubeRay's limit"
    assert set(long.job.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_own_configuration_is_found_by_the_nodes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(f"extends: {QUICK}\ntrain: {{steps: 7}}\n")
    words = shlex.split(json.loads(render("ray", config="own.yaml"))["entrypoint"])
    assert str(tmp_path / "own.yaml") in words
    assert "name=own" in words
    uploaded = shlex.split(json.loads(render("ray", "cluster.upload=true", config="own.yaml"))["entrypoint"])
    assert "own.yaml" in uploaded


@pytest.mark.parametrize("words", [[], [NASTY], ["data.name=files", "data.path=texts", "data.pattern=*.py"]])
def test_kubernetes_carries_the_configuration_where_words_could_change_on_the_way(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    *maps, job = yaml.safe_load_all(render("kubernetes", *words))
    entry = job["spec"]["entrypoint"].split()
    assert entry == shlex.split(job["spec"]["entrypoint"]), "nothing to quote"
    assert bool(maps) == bool(words)
    if maps:
        assert entry[2] == "/etc/generative/config.yaml"
        (tmp_path / "config.yaml").write_text(maps[0]["data"]["config.yaml"])
        assert load_run_config("config.yaml") == load_run_config(QUICK, words)
        mounted = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
        assert {"name": "config", "configMap": {"name": maps[0]["metadata"]["name"]}} in mounted
        assert load_layers("config.yaml").values["data"].get("path", "texts") == "texts"


def test_kubernetes_job_asks_for_what_the_cluster_says():
    words = ["cluster.nodes=3", "cluster.node.gpus=2", "cluster.namespace=team", "cluster.secrets.KEY=store/key"]
    job = yaml.safe_load(render("kubernetes", *words, "cluster.node_selector.pool=a100", "cluster.grace_seconds=90"))
    spec = job["spec"]["rayClusterSpec"]
    (group,) = spec["workerGroupSpecs"]
    pod, head = group["template"]["spec"], spec["headGroupSpec"]["template"]["spec"]
    assert job["metadata"]["namespace"] == "team"
    assert group["replicas"] == 3
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"pool": "a100"}
    secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "store", "key": "key"}}}
    assert secret in pod["containers"][0]["env"]
    assert spec["authOptions"] == {"mode": "token"}
    assert head["terminationGracePeriodSeconds"] > 90
    assert "/stop" in head["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert f"run.dir=/mnt/generative/runs/{QUICK}" in job["spec"]["entrypoint"]


@pytest.mark.skipif(not kuberay.available(), reason=kuberay.MISSING)
@pytest.mark.parametrize("words", [[], [NASTY, "cluster.node.gpus=8", "cluster.secrets.KEY=a/b"]])
def test_kubernetes_job_is_valid_for_kuberay(words):
    *_, job = yaml.safe_load_all(render("kubernetes", *words))
    assert kuberay.problems(job) == []
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelektor"] = {}
    assert len(kuberay.problems(job)) == 1, "an unknown field is an error"


def test_torchrun_lines_differ_only_in_who_is_the_first():
    words = ["launch.workers=6", "cluster.nodes=3", "cluster.rendezvous=node1:29500", "cluster.interface=eth0"]
    lines = [shlex.split(line) for line in render("torchrun", *words).splitlines() if not line.startswith("#")]
    assert len(lines) == 3
    assert all("--nproc-per-node=2" in line and "GLOO_SOCKET_IFNAME=eth0" in line for line in lines)
    assert [line.index("--rdzv-conf=is_host=1") if i == 0 else -1 for i, line in enumerate(lines)][1:] == [-1, -1]
    assert {word for line in lines for word in line} - set(lines[1]) == {"--rdzv-conf=is_host=1"}


@pytest.mark.parametrize(
    ("backend", "words", "told"),
    [
        ("slurm", ["cluster.nodes=1", "launch.workers=8", "launch.gpus_per_worker=1"], "cluster.nodes"),
        ("kubernetes", ["cluster.node.cpus=1", "launch.workers=8"], "cluster.nodes"),
        ("kubernetes", ["run.dir=/home/me/run"], "cluster.storage.path"),
        ("kubernetes", ["run.dir=a b"], "run.dir"),
        ("torchrun", ["cluster.nodes=3", "launch.workers=4", "cluster.rendezvous=h:1"], "launch.workers=3"),
        ("torchrun", ["cluster.nodes=2"], "cluster.rendezvous"),
        ("slurm", ["cluster.launcher=torchrun", "cluster.nodes=2", "launch.workers=3"], "launch.workers=2"),
        ("ray", ["train.stepz=3"], "train.steps"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(backend, words, told):
    with pytest.raises(GenerativeError) as error:
        prepare(QUICK, words, backend)
    assert told in str(error.value)
    assert error.value.remedy


def test_too_many_workers_is_a_matter_of_resources_and_uneven_ones_of_configuration():
    with pytest.raises(ResourceError):
        prepare(QUICK, ["cluster.nodes=1", "cluster.cpus_per_node=1"], "slurm")
    with pytest.raises(ConfigError):
        prepare(QUICK, ["cluster.nodes=2", "launch.workers=3", "cluster.rendezvous=h:1"], "torchrun")
