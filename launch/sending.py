"""Handing a job over: to Ray's Jobs API, to sbatch, to kubectl, or to torchrun here."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from generative.errors import ResourceError
from launch.cluster_schema import Cluster, KubernetesCluster, RayCluster, TorchrunCluster
from launch.stopping import INTERRUPTED
from launch.templates import torchrun
from launch.templates.job import Job

if TYPE_CHECKING:
    from launch.submit import Submission

COMMAND_SECONDS = 60.0
"""How long sbatch, squeue and kubectl may take."""

STOP_SECONDS = 120.0
"""How long the workers of torchrun may take to save and leave."""


def to_ray(submission: Submission, cluster: RayCluster, wait: bool) -> int:
    """Send it to the cluster's Jobs API, and follow its log."""
    from launch.jobs import Jobs

    jobs = Jobs.at(cluster, submission.words)
    name = jobs.submit(submission.job, submission.directory)
    typer.echo(f"submit  job {name} at {cluster.address} · run folder {submission.job.folder}\n{jobs.advice(name)}")
    return jobs.follow(name) if wait else 0


def to_slurm(job: Job, script: str) -> int:
    """Write the script into the run folder and give it to sbatch."""
    from generative.training.runfolder import atomic_write, check_writable

    _need("sbatch", "Slurm's commands, on a login node", "--dry-run")
    queued = _call(["squeue", "--me", f"--name={job.id}", "--noheader", "--format=%i"]).split()
    if queued:
        raise ResourceError(
            f"the run {job.run} in {job.folder} has job {queued[0]} in the queue already",
            "one job at a time for a run",
            f"end it with `scancel --batch --signal=TERM {queued[0]}` (it saves first), or give run.dir=ANOTHER_FOLDER",
        )
    folder = Path(job.folder)
    check_writable(folder)
    (folder / "logs").mkdir(exist_ok=True)
    atomic_write(folder / "job.sh", script)
    number = _call(["sbatch", "--parsable", str(folder / "job.sh")]).strip().partition(";")[0]
    typer.echo(
        f"submit  Slurm job {number} · script {folder}/job.sh\n"
        f"  look  squeue --job={number} · tail -f {folder}/logs/slurm-{number}.log\n"
        f"  stop  scancel --batch --signal=TERM {number}   (saves first)"
    )
    return 0


def to_kubernetes(job: Job, cluster: KubernetesCluster, manifest: str) -> int:
    """Give the manifest to kubectl. An ended RayJob of the same run is removed first: it would not start again."""
    _need("kubectl", "kubectl, with access to the cluster", "--dry-run")
    kubectl = ["kubectl", f"--namespace={cluster.namespace}", f"--request-timeout={COMMAND_SECONDS:g}s"]
    status = "jsonpath={.metadata.name} {.status.jobDeploymentStatus}"
    found = _call([*kubectl, "get", "rayjob", job.id, "--ignore-not-found", f"--output={status}"]).split()
    if found and found[1:] not in (["Complete"], ["Failed"]):
        raise ResourceError(
            f"the run {job.run} in {job.folder} has a RayJob already: {job.id} ({' '.join(found[1:]) or 'starting'})",
            "one job at a time for a run",
            f"`kubectl delete rayjob {job.id} -n {cluster.namespace}` ends it (saving first); or give another run.dir",
        )
    if found:
        _call([*kubectl, "delete", "rayjob", job.id, "--wait"])
    path = _kept(job, manifest)
    _call([*kubectl, "apply", "-f", path or "-"], manifest if path is None else None)
    where = f"-n {cluster.namespace}"
    typer.echo(
        f"submit  RayJob {job.id} · manifest {path or '(standard input)'}\n"
        f"  look  kubectl get rayjob {job.id} {where} · kubectl logs -f {where} -l job-name={job.id}\n"
        f"  stop  kubectl delete rayjob {job.id} {where}   (saves first)"
    )
    return 0


def _kept(job: Job, manifest: str) -> str | None:
    """File of the manifest: in the run folder; None where the volume of the pods is not seen here."""
    from generative.errors import RunFolderError
    from generative.training.runfolder import atomic_write, check_writable

    if not Path(job.folder).parent.is_dir():
        return None
    try:
        check_writable(Path(job.folder))
        atomic_write(Path(job.folder) / "job.yaml", manifest)
    except RunFolderError:
        return None
    return str(Path(job.folder) / "job.yaml")


def torchrun_words(job: Job, cluster: TorchrunCluster, node: int = 0) -> list[str]:
    """The command line of a machine; of a single one with the interpreter and the program that this is."""
    if cluster.nodes > 1:
        return torchrun.render(job, cluster, node=node)
    if cluster.command == Cluster().command:
        cluster = cluster.model_copy(update={"command": shlex.join([sys.executable, "-m", "launch.cli"])})
    return torchrun.render(job, cluster, sys.executable)


def to_torchrun(job: Job, cluster: TorchrunCluster, text: str) -> int:
    """Start the processes here; for several machines, say what to start on each."""
    if cluster.nodes > 1:
        typer.echo(f"# start these within a minute of each other, in a folder that all machines see\n{text}")
        return 0
    from launch.folder import outcome_state

    (folder := Path(job.folder)).mkdir(parents=True, exist_ok=True)
    if outcome_state(folder) != "complete":
        (folder / "outcome.json").unlink(missing_ok=True)
    environment = {**os.environ, **torchrun.environment(cluster)}
    # A session of its own: Ctrl-C must not reach torchrun, which would kill the workers while they save.
    process = subprocess.Popen(torchrun_words(job, cluster), env=environment, start_new_session=True)
    with _stops(process, folder):
        code = process.wait()
    return _outcome_code(folder, code)


@contextlib.contextmanager
def _stops(process: subprocess.Popen[Any], folder: Path) -> Any:
    """The first signal asks the workers to save and leave; the second, or too long a wait, ends all of them."""
    count = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal count
        count += 1
        if count > 1 or number == signal.SIGALRM:
            _end_group(process)
            return
        typer.echo("stop    saving at the next step (the same signal again stops at once)")
        (folder / "stop").touch()
        signal.alarm(int(STOP_SECONDS))

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in previous.items():
            signal.signal(number, handler)
        _end_group(process)


def _end_group(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _outcome_code(folder: Path, code: int) -> int:
    """Exit code of the run: torchrun itself knows only 0 and 1. A complete one may still have met an error after it."""
    from launch.folder import read_json

    outcome = read_json(folder / "outcome.json")
    if outcome.get("state") in ("interrupted", "failed"):
        return int(outcome.get("exit_code") or 0)
    return INTERRUPTED if code < 0 else code


def _need(program: str, expected: str, instead: str) -> None:
    if shutil.which(program) is None:
        raise ResourceError(
            f"there is no {program} on this machine",
            expected,
            f"give the command where {program} is, or print the job with {instead}",
        )


def _call(words: Sequence[str], text: str | None = None) -> str:
    """Output of a command of the cluster.

    Raises:
        ResourceError: it failed, or gave no answer in time.
    """
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=COMMAND_SECONDS + 5)
    except subprocess.TimeoutExpired as error:
        problem = f"`{words[0]}` gave no answer within {COMMAND_SECONDS:g} s"
        raise ResourceError(problem, "a cluster that answers", "look at the cluster, then try again") from error
    except OSError as error:
        problem = f"`{words[0]}` cannot be run: {error.strerror}"
        raise ResourceError(problem, f"a working {words[0]}", "repair the installation") from error
    if done.returncode:
        said = "; ".join(_told(done.stderr) or _told(done.stdout)) or f"exit code {done.returncode}"
        raise ResourceError(
            f"`{shlex.join(words)}` failed: {said}",
            "a job that the cluster accepts",
            "mend what it says (the settings are those of cluster.*), then give the command again",
        )
    return done.stdout


def _told(output: str) -> list[str]:
    """The last lines that a command printed, without those of its own log."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return [line for line in lines if not re.match(r"[EWI]\d{4} ", line)][-3:]
