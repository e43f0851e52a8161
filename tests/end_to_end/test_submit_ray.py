"""Runs as Ray Jobs on a cluster that is already there: submit, follow, refuse a second one, stop, go on."""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from tests.end_to_end.runs import CONFIG, Run, kill_group, write_text

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _silent(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


ALONE = "launch.workers=1"
"""What jobs do to a run does not depend on how many workers it has, and each takes seconds to start."""


@pytest.fixture(scope="module")
def cluster():
    """The words that name a cluster with a dashboard on loopback, and the environment with its token."""
    address = f"http://127.0.0.1:{_free_port()}"
    # A short path: Ray's sockets must fit into 107 characters.
    folder = tempfile.mkdtemp(prefix="genjobs-", dir="/tmp")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    start = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"
    command = [sys.executable, "-c", start, "start", "--head", "--block", "--num-cpus=2", f"--port={_free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={address.rpartition(':')[2]}", f"--temp-dir={folder}"]
    command += [f"--ray-client-server-port={_free_port()}", f"--dashboard-agent-listen-port={_free_port()}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    said = pathlib.Path(folder, "start.log")
    with said.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    words = [f"cluster.address={address}", f"cluster.command={sys.executable} -m launch.cli"]
    try:
        deadline = time.monotonic() + 60
        while _silent(int(address.rpartition(":")[2])):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
        while generative(environment, "jobs", "list", *words).returncode:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.5)
        yield words, environment
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            kill_group(process)
            shutil.rmtree(folder, ignore_errors=True)


def generative(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def test_job_is_followed_stopped_and_goes_on(cluster, tmp_path):
    words, environment = cluster
    write_text(tmp_path)
    run = Run(tmp_path, tmp_path / "run")
    submit = ["submit", str(CONFIG), f"data.path={tmp_path}", f"data.cache={tmp_path}/cache", f"run.dir={run.folder}"]
    long = [*submit, *words, ALONE, "train.steps=100000"]
    first = generative(environment, *long, "--no-wait")
    assert first.returncode == 0, first.stdout + first.stderr
    job = first.stdout.split()[2]
    deadline = time.monotonic() + 120
    while run.step() < 5:
        assert time.monotonic() < deadline, generative(environment, "jobs", "logs", job, *words).stdout
        time.sleep(0.1)

    again = generative(environment, *long)
    assert again.returncode == 3
    assert job in again.stderr
    assert "jobs stop" in again.stderr
    assert "running" in generative(environment, "jobs", "list", *words).stdout
    shown = generative(environment, "jobs", "status", str(run.folder), *words).stdout
    assert job in shown
    assert str(run.folder) in shown

    stopped = generative(environment, "jobs", "stop", job, *words)
    assert "stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert run.read("outcome.json") == {"state": "interrupted", "exit_code": 75}
    stopped_at = run.step()
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    assert generative(environment, "jobs", "logs", job, "--follow", *words).returncode == 75

    second = generative(environment, *long, "--no-wait")
    assert second.stdout.split()[2] == f"{job}.2", second.stdout + second.stderr
    while run.step() <= stopped_at:
        assert time.monotonic() < deadline + 60, generative(environment, "jobs", "logs", job, *words).stdout
        time.sleep(0.1)
    generative(environment, "jobs", "stop", str(run.folder), *words)
    assert [event["step"] for event in run.lines("events.jsonl") if event["kind"] == "resume"] == [stopped_at]


def test_followed_job_ends_as_the_run_does(cluster, tmp_path):
    words, environment = cluster
    write_text(tmp_path)
    run = Run(tmp_path, tmp_path / "run")
    data = (f"data.path={tmp_path}", f"data.cache={tmp_path}/cache", f"run.dir={run.folder}", "train.steps=4")
    whole = generative(environment, "submit", str(CONFIG), *data, *words, ALONE)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "report.html" in whole.stdout
    assert run.step() == 4


def test_wrong_token_is_told_apart_from_a_dead_cluster(cluster):
    words, environment = cluster
    refused = generative({**environment, "RAY_AUTH_TOKEN": "f" * 64}, "jobs", "list", *words)
    assert refused.returncode == 3
    assert "token" in refused.stderr.splitlines()[0]
    assert "f" * 64 not in refused.stderr
    dead = generative(environment, "jobs", "list", f"cluster.address=http://127.0.0.1:{_free_port()}")
    assert dead.returncode == 3
    assert "no Ray cluster answers" in dead.stderr
