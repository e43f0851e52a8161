"""`generative submit`, and `generative jobs` for what became of it on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from launch.run_cli import ConfigName

if TYPE_CHECKING:
    from launch.jobs import Jobs

app = typer.Typer(
    help="List, watch and stop jobs on a Ray cluster.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[a.b=c] [cluster=NAME] [cluster.key=value]", help="Settings of the run, and of the cluster."
    ),
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or name or folder of its run.")]
ClusterWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="[cluster=NAME] [cluster.key=value]", help="Where to look; our-ray if not given."),
]


def submit(
    config: ConfigName,
    words: Words = None,
    backend: Annotated[
        str | None,
        typer.Option(help="ray, slurm, kubernetes or torchrun; if not given, as the cluster's description says."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the job as it would be submitted.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ray: do not follow the log.")] = False,
) -> None:
    """Send a run to a cluster.

    Submitted again, it goes on where it was.

    Clusters are described in configs/cluster (`generative config list`) or in a YAML file of yours.

    Example: generative submit masked_diffusion/1.1b cluster=our-slurm cluster.nodes=8 launch.workers=64 --dry-run
    """
    from launch import submit as submitting

    raise typer.Exit(submitting.submit(config, words or [], backend, dry_run, not no_wait))


@app.command("list")
def list_jobs(words: ClusterWords = None) -> None:
    """List the jobs of a cluster, the newest last."""
    from launch.jobs import cells, table

    jobs = _jobs(words)
    rows = [cells(job) for job in jobs.all()]
    typer.echo(table(rows) if rows else f"no jobs at {jobs.cluster.address}")


@app.command()
def status(job: JobName, words: ClusterWords = None) -> None:
    """Show one job: state, run, folder, command."""
    from launch.jobs import describe

    typer.echo(describe(_jobs(words).find(job)))


@app.command()
def logs(
    job: JobName,
    words: ClusterWords = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow until the job ends; the exit code is then the job's.")
    ] = False,
) -> None:
    """Print what a job's driver has printed. Ctrl-C leaves the job alone."""
    jobs = _jobs(words)
    name = jobs.find(job).submission_id
    if follow:
        raise typer.Exit(jobs.follow(name))
    typer.echo(jobs.log(name), nl=False)


@app.command()
def stop(job: JobName, words: ClusterWords = None) -> None:
    """Let a job save a checkpoint and end. Waits for it; submitted again, the run goes on there."""
    from launch.jobs import ENDED, state

    jobs = _jobs(words)
    found = jobs.find(job)
    if found.status in ENDED:
        typer.echo(f"job {found.submission_id} is {state(found)} already")
        return
    typer.echo(f"stop    job {found.submission_id}: saving (at most {jobs.cluster.stop_seconds} s)")
    ended = jobs.stop(found.submission_id)
    typer.echo(f"stop    job {ended.submission_id} is {state(ended)}; submitted again, the run goes on")


def _jobs(words: list[str] | None) -> Jobs:
    from generative.errors import ConfigError
    from launch.cluster_schema import RayCluster
    from launch.clusters import load_cluster
    from launch.jobs import Jobs
    from launch.submit import split

    others, name, overrides = split(words or [])
    if others:
        raise ConfigError(
            f"{others[0]!r} is not understood here",
            "cluster=NAME or cluster.key=value",
            "leave it out: settings of a run belong to `generative submit`",
        )
    cluster = load_cluster(name, None, overrides)
    if not isinstance(cluster, RayCluster):
        own = {
            "slurm": "squeue --me, scancel",
            "kubernetes": "kubectl get rayjobs, kubectl logs, kubectl delete rayjob",
        }
        raise ConfigError(
            f"cluster={name} is no Ray cluster: its jobs are not Ray Jobs",
            "a cluster whose backend is ray",
            f"use {own.get(cluster.name, 'generative status')}, or name a Ray cluster",
        )
    return Jobs.at(cluster, "".join(f" {word}" for word in words or []))
