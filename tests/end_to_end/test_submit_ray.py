"""Runs as Ray Jobs on a cluster that is already there: submit, follow, refuse a second one, stop, go on."""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from launch.ray_cluster import NO_IDLE_WORKERS
from tests.end_to_end.runs import CONFIG, QUIET, Run, kill_group, write_text
from tests.support.groups import free_port

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def _silent(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


ALONE = "launch.workers=1"
"""What jobs do to a run does not depend on how many workers it has, and each takes seconds to start."""


SAVING_SECONDS = 4.0
"""How long the worker takes to save: more than the 3 s after which Ray kills a job, unless it is told to wait."""


@pytest.fixture(scope="module")
def cluster():
    """The words that name a cluster with a dashboard on loopback, and the environment with its token."""
    address = f"http://127.0.0.1:{free_port()}"
    # A short path: Ray's sockets must fit into 107 characters.
    folder = tempfile.mkdtemp(prefix="genjobs-", dir="/tmp")
    environment = {
        **os.environ,
        **NO_IDLE_WORKERS,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    start = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"
    command = [sys.executable, "-c", start, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={address.rpartition(':')[2]}", f"--temp-dir={folder}"]
    command += [f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    said = pathlib.Path(folder, "start.log")
    with said.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    words = [f"cluster.address={address}", f"cluster.command={sys.executable} -m launch.cli"]
    try:
        deadline = time.monotonic() + 150
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


def start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "launch.cli", *words], env=environment, **pipes)


def ended(command: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = command.communicate(timeout=200)
    finally:
        command.kill()
    return subprocess.CompletedProcess(command.args, command.returncode, out, err)


def generative(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return ended(start(environment, *words))


def test_job_is_refused_twice_stopped_and_followed_to_its_end(cluster, tmp_path):
    words, environment = cluster
    write_text(tmp_path)
    run = Run(tmp_path, tmp_path / "run")
    submit = ["submit", str(CONFIG), f"data.path={tmp_path}", f"data.cache={tmp_path}/cache", f"run.dir={run.folder}"]
    submit += [*words, *QUIET, ALONE, "train.steps=400"]
    first = generative(environment, *submit, "--no-wait")
    assert first.returncode == 0, first.stdout + first.stderr
    job = first.stdout.split()[2]
    deadline = time.monotonic() + 120
    while run.step() < 5:
        assert time.monotonic() < deadline, generative(environment, "jobs", "logs", job, *words).stdout
        time.sleep(0.01)
    # A run of seconds: its worker waits, lest it be over before anybody has asked about it.
    (worker,) = {line["pid"] for line in run.lines("logs/workers.jsonl")}
    os.kill(worker, signal.SIGSTOP)

    again = generative(environment, *submit)
    assert again.returncode == 3
    assert job in again.stderr
    assert "jobs stop" in again.stderr
    assert "running" in generative(environment, "jobs", "list", *words).stdout
    shown = generative(environment, "jobs", "status", str(run.folder), *words).stdout
    assert job in shown
    assert str(run.folder) in shown

    stopping = start(environment, "jobs", "stop", str(run.folder), *words)
    while not (run.folder / "stop").exists():
        assert stopping.poll() is None, stopping.communicate()
        time.sleep(0.02)
    # The signal goes to every process of the job. One that it ended would be gone before the worker has saved.
    time.sleep(SAVING_SECONDS)
    os.kill(worker, signal.SIGCONT)
    stopped = ended(stopping)
    assert "stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert run.read("outcome.json") == {"state": "interrupted", "exit_code": 75}
    stopped_at = run.step()
    assert 5 <= stopped_at < 400
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    assert generative(environment, "jobs", "logs", job, "--follow", *words).returncode == 75

    whole = generative(environment, *submit)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert whole.stdout.split()[2] == f"{job}.2"
    assert "report.html" in whole.stdout
    assert run.step() == 400
    assert [event["step"] for event in run.lines("events.jsonl") if event["kind"] == "resume"] == [stopped_at]


def test_wrong_token_is_told_apart_from_a_dead_cluster(cluster):
    words, environment = cluster
    refused = generative({**environment, "RAY_AUTH_TOKEN": "f" * 64}, "jobs", "list", *words)
    assert refused.returncode == 3
    assert "token" in refused.stderr.splitlines()[0]
    assert "f" * 64 not in refused.stderr
    dead = generative(environment, "jobs", "list", f"cluster.address=http://127.0.0.1:{free_port()}")
    assert dead.returncode == 3
    assert "no Ray cluster answers" in dead.stderr
