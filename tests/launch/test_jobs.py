"""Ray Jobs without a cluster: what is told, and that nothing waits for ever."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from generative.errors import ConfigError, ResourceError
from launch import jobs_api
from launch.clusters import load_cluster
from launch.jobs import Jobs, cells, state, table
from launch.templates.job import Job


def job(name: str, status: str, **fields):
    about = {"run": "toy", "run_dir": "/runs/toy"}
    values = {"driver_exit_code": None, "start_time": 1_000, "end_time": None, "metadata": about, "entrypoint": "x"}
    return SimpleNamespace(submission_id=name, status=status, **values | fields)


def jobs(*there) -> Jobs:
    client = SimpleNamespace(sent=[], list_jobs=lambda: list(there))
    client.submit_job = lambda **request: client.sent.append(request) or request["submission_id"]
    return Jobs(client, load_cluster(None, "ray"), " cluster=mine")


def a_run(**fields) -> Job:
    from launch.sections import LaunchConfig

    return Job("toy", "/runs/toy", "toy", (), LaunchConfig(), **fields)


def test_a_run_has_one_job_at_a_time_and_each_one_its_own_number():
    name = a_run().id
    assert jobs().submit(a_run(), "/place") == name
    ended = [job(name, "STOPPED"), job(f"{name}.2", "FAILED", driver_exit_code=75)]
    assert jobs(*ended).submit(a_run(), "/place") == f"{name}.3"
    busy = jobs(*ended, job(f"{name}.3", "PENDING"))
    with pytest.raises(ResourceError) as error:
        busy.submit(a_run(), "/place")
    assert f"jobs stop {name}.3 cluster=mine" in error.value.remedy
    assert busy.client.sent == []
    assert jobs(job("another", "RUNNING")).submit(a_run(), "/place") == name


def test_cluster_that_is_still_starting_is_given_a_moment(monkeypatch):
    monkeypatch.setattr("launch.jobs.POLL_SECONDS", 0.0)
    starting, answers = jobs(), iter(["No available agent to submit job", None, "something else"])

    def submit_job(**request):
        if problem := next(answers):
            raise RuntimeError(problem)
        return request["submission_id"]

    starting.client.submit_job = submit_job
    assert starting.submit(a_run(), "/place") == a_run().id
    with pytest.raises(ResourceError, match="something else"):
        starting.submit(a_run(), "/place")


def test_job_is_found_by_identity_run_or_folder_the_newest_first():
    there = jobs(job("toy-1", "FAILED", start_time=1), job("toy-1.2", "RUNNING", start_time=2))
    assert there.find("toy-1").submission_id == "toy-1.2"
    assert there.find("toy").submission_id == "toy-1.2"
    assert there.find("/runs/toy").submission_id == "toy-1.2"
    with pytest.raises(ConfigError, match=r"Did you mean toy-1"):
        there.find("toy-3")


@pytest.mark.parametrize(
    ("status", "code", "shown", "exit_code"),
    [
        ("SUCCEEDED", 0, "complete", 0),
        ("FAILED", 75, "interrupted", 75),
        ("FAILED", 3, "failed (3)", 3),
        ("FAILED", None, "failed (no exit code)", 1),
        ("STOPPED", None, "stopped", 75),
    ],
)
def test_end_of_a_job_is_the_end_of_its_run(status, code, shown, exit_code):
    ended = job("a", status, driver_exit_code=code)
    assert state(ended) == shown
    assert Jobs.exit_code(ended) == exit_code


def test_table_has_a_line_for_each_job():
    lines = table([cells(job("toy-1", "RUNNING"), now=61.0), cells(job("b", "PENDING", start_time=None))]).splitlines()
    assert len(lines) == 3
    assert "1 min 00 s" in lines[1]
    assert "waiting" in lines[2]


@pytest.mark.timeout(60)
def test_cluster_that_does_not_answer_is_given_up(mute, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(jobs_api, "ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    cluster = load_cluster("our-ray", None, [f"cluster.address=http://127.0.0.1:{mute}", "cluster.auth=disabled"])
    with pytest.raises(ResourceError, match=r"no answer within 0\.5 s"):
        Jobs.at(cluster)


def test_missing_token_is_told_before_ray_is_asked(mute, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ResourceError, match="there is no token"):
        Jobs.at(load_cluster("our-ray", None, [f"cluster.address=http://127.0.0.1:{mute}"]))
