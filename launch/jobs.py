"""Ray Jobs of our runs: send, follow, look at, stop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from evaluation.quantities import duration
from generative.errors import ConfigError, ResourceError, suggestion
from launch.cluster_schema import RayCluster
from launch.jobs_api import connect, errors
from launch.stopping import INTERRUPTED
from launch.templates import ray_job
from launch.templates.job import Job

POLL_SECONDS = 0.5
STARTING_SECONDS = 60.0
"""How long a cluster that was just started may take until it runs jobs; its dashboard answers before."""

DETACHED = 130
"""Exit code after Ctrl-C, as of any command: the job goes on, its end is not known."""

ENDED = ("STOPPED", "SUCCEEDED", "FAILED")
HEADER = ("job", "state", "run", "began", "took")


@dataclass(frozen=True)
class Jobs:
    """The jobs of one cluster.

    Args:
        client: Ray's `JobSubmissionClient`.
        cluster: where.
        words: of a command line that name the cluster, for advice.
    """

    client: Any
    cluster: RayCluster
    words: str

    @classmethod
    def at(cls, cluster: RayCluster, words: str = "") -> Jobs:
        """Those of a cluster.

        Raises:
            ResourceError: it cannot be reached.
        """
        return cls(connect(cluster), cluster, words)

    def all(self) -> list[Any]:
        """All submitted jobs, the oldest first."""
        with errors(self.cluster):
            found = [job for job in self.client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.start_time or 0)

    def find(self, name: str) -> Any:
        """The job with this identity; or the newest one of the run of this name, folder or identity.

        Raises:
            ConfigError: there is none.
        """
        jobs, folder = self.all(), os.path.abspath(name)
        for job in reversed(jobs):
            about = job.metadata or {}
            if name in (job.submission_id, job.submission_id.partition(".")[0], about.get("run")):
                return job
            if about.get("run_dir") in (name, folder):
                return job
        known = [job.submission_id for job in jobs]
        raise ConfigError(
            f"there is no job {name!r} at {self.cluster.address}{suggestion(name, known)}",
            f"one that `generative jobs list{self.words}` prints, or the name of its run",
            "correct the name, or the cluster",
        )

    def submit(self, job: Job, directory: str) -> str:
        """Send a run, which works in a folder of the nodes; the identity of the job. Each start has its own number.

        Raises:
            ResourceError: the run has a job that is still going on.
        """
        earlier = [old for old in self.all() if old.submission_id.partition(".")[0] == job.id]
        for old in earlier:
            if old.status not in ENDED:
                raise self._running(old, job)
        submission = job.id if not earlier else f"{job.id}.{len(earlier) + 1}"
        request = ray_job.render(job, self.cluster, submission, directory)
        deadline = time.monotonic() + STARTING_SECONDS
        while True:
            try:
                with errors(self.cluster):
                    return str(self.client.submit_job(**request))
            except ResourceError as error:
                if "No available agent" not in error.problem or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _running(self, old: Any, job: Job) -> ResourceError:
        return ResourceError(
            f"the run {job.run} in {job.folder} has a job that is {old.status.lower()} already: {old.submission_id}",
            "one job at a time for a run",
            f"follow it with `generative jobs logs {old.submission_id} --follow{self.words}`, stop it with `generative "
            f"jobs stop {old.submission_id}{self.words}`, or give run.dir=ANOTHER_FOLDER",
        )

    def follow(self, submission: str) -> int:
        """Show a job's log until it ends; its exit code, or `DETACHED` after Ctrl-C, which leaves the job alone."""
        try:
            with errors(self.cluster):
                asyncio.run(self._tail(submission))
                return self.exit_code(self._ended(submission, 30.0))
        except KeyboardInterrupt:
            typer.echo(f"\nthe job goes on without this window\n{self.advice(submission)}")
            return DETACHED

    async def _tail(self, submission: str) -> None:
        async for text in self.client.tail_job_logs(submission):
            typer.echo(text, nl=False)

    def advice(self, submission: str) -> str:
        """How to look at a job and stop it."""
        return (
            f"  look  generative jobs logs {submission} --follow{self.words}\n"
            f"  stop  generative jobs stop {submission}{self.words}"
        )

    def log(self, submission: str) -> str:
        """Everything that a job has printed so far."""
        with errors(self.cluster):
            return str(self.client.get_job_logs(submission))

    def stop(self, submission: str) -> Any:
        """Ask a job to save and leave, and wait for it; the ended job.

        Raises:
            ResourceError: it has not ended within cluster.stop_seconds and some seconds more.
        """
        with errors(self.cluster):
            self.client.stop_job(submission)
        return self._ended(submission, self.cluster.stop_seconds + 30.0)

    def _ended(self, submission: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            with errors(self.cluster):
                job = self.client.get_job_info(submission)
            if job.status in ENDED:
                return job
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"the job {submission} is still {job.status.lower()} after {seconds:g} s",
                    "a job that has ended",
                    f"look at it with `generative jobs logs {submission}{self.words}`",
                )
            time.sleep(POLL_SECONDS)

    @staticmethod
    def exit_code(job: Any) -> int:
        """Exit code of the run: the driver's own; 75 for a job that was stopped, which Ray gives no code."""
        if job.status == "STOPPED":
            return INTERRUPTED
        return int(job.driver_exit_code if job.driver_exit_code is not None else job.status != "SUCCEEDED")


def state(job: Any) -> str:
    """State of a job in our words."""
    code = job.driver_exit_code
    words = {"PENDING": "waiting", "RUNNING": "running", "SUCCEEDED": "complete", "STOPPED": "stopped"}
    if job.status == "FAILED":
        return "interrupted" if code == INTERRUPTED else f"failed ({'no exit code' if code is None else code})"
    return words.get(str(job.status), str(job.status).lower())


def cells(job: Any, now: float | None = None) -> tuple[str, ...]:
    """Texts for the columns of `HEADER`."""
    began = (job.start_time or 0) / 1000
    end = job.end_time / 1000 if job.end_time else (time.time() if now is None else now)
    shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else "-"
    run = (job.metadata or {}).get("run", "-")
    return (job.submission_id, state(job), run, shown, duration(end - began) if began else "-")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Jobs, one a line."""
    rows = [HEADER, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def describe(job: Any) -> str:
    """All that there is to say about one job."""
    name, state_now, run, began, took = cells(job)
    about = {"job": name, "state": state_now, "run": run, "folder": (job.metadata or {}).get("run_dir", "-")}
    about |= {"began": began, "took": took, "command": job.entrypoint.rpartition(" && exec ")[2]}
    return "\n".join(f"  {key:<8} {value}" for key, value in about.items())
