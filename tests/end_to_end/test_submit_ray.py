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

from tests.end_to_end.runs import CONFIG, QUIET, Run, kill_group, write_text
from tests.support.forked import Forked
from tests.support.groups import free_port

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def _silent(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


ALONE = "launch.workers=1"
"""What jobs do to a run does not depend on how many workers it has, and each takes seconds to start."""


@pytest.fixture(scope="module")
def cluster():
    """The words that name a cluster with a dashboard on loopback, and the environment with its token."""
    address = f"http://127.0.0.1:{free_port()}"
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
        while generative(environment, "jobs", "list", *words)[0]:
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


def start(environment: dict[str, str], *words: str) -> Forked:
    return Forked(["-m", "launch.cli", *words], environment)


def ended(command: Forked) -> tuple[int, str]:
    """Its exit code, and what it said."""
    try:
        return command.wait(200), command.said()
    finally:
        command.close()


def generative(environment: dict[str, str], *words: str) -> tuple[int, str]:
    return ended(start(environment, *words))


def test_job_is_refused_twice_stopped_and_followed_to_its_end(cluster, tmp_path):
    words, environment = cluster
    write_text(tmp_path)
    run = Run(tmp_path, tmp_path / "run")
    submit = ["submit", str(CONFIG), f"data.path={tmp_path}", f"data.cache={tmp_path}/cache", f"run.dir={run.folder}"]
    submit += [*words, *QUIET, ALONE, "train.steps=400"]
    first = generative(environment, *submit, "--no-wait")
    assert first[0] == 0, first
    job = first[1].split()[2]
    deadline = time.monotonic() + 120
    while run.step() < 5:
        assert time.monotonic() < deadline, generative(environment, "jobs", "logs", job, *words)
        time.sleep(0.01)
    # A run of seconds: its worker waits, lest it be over before anybody has asked about it.
    (worker,) = {line["pid"] for line in run.lines("logs/workers.jsonl")}
    os.kill(worker, signal.SIGSTOP)

    code, refusal = generative(environment, *submit)
    assert code == 3
    assert job in refusal
    assert "jobs stop" in refusal
    assert "running" in generative(environment, "jobs", "list", *words)[1]
    _, shown = generative(environment, "jobs", "status", str(run.folder), *words)
    assert job in shown
    assert str(run.folder) in shown

    stopping = start(environment, "jobs", "stop", str(run.folder), *words)
    while not (run.folder / "stop").exists():
        assert stopping.poll() is None, stopping.said()
        time.sleep(0.02)
    os.kill(worker, signal.SIGCONT)
    _, stopped = ended(stopping)
    assert "stopped" in stopped
    assert run.read("outcome.json") == {"state": "interrupted", "exit_code": 75}
    stopped_at = run.step()
    assert 5 <= stopped_at < 400
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    assert generative(environment, "jobs", "logs", job, "--follow", *words)[0] == 75

    code, whole = generative(environment, *submit)
    assert code == 0, whole
    assert whole.split()[2] == f"{job}.2"
    assert "report.html" in whole
    assert run.step() == 400
    assert [event["step"] for event in run.lines("events.jsonl") if event["kind"] == "resume"] == [stopped_at]


def test_wrong_token_is_told_apart_from_a_dead_cluster(cluster):
    words, environment = cluster
    code, refusal = generative({**environment, "RAY_AUTH_TOKEN": "f" * 64}, "jobs", "list", *words)
    assert code == 3
    assert "token" in refusal.splitlines()[0]
    assert "f" * 64 not in refusal
    code, dead = generative(environment, "jobs", "list", f"cluster.address=http://127.0.0.1:{free_port()}")
    assert code == 3
    assert "no Ray cluster answers" in dead
