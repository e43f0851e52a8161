"""A run under torchrun: one command line for each machine."""

from __future__ import annotations

from generative.errors import ConfigError
from launch.cluster_schema import SlurmCluster, TorchrunCluster
from launch.sections import LaunchConfig
from launch.templates.job import Job

LOCAL = ("launch.backend=local",)


def processes(launch: LaunchConfig, nodes: int, per_node: int | None = None) -> int:
    """Workers on each machine.

    Raises:
        ConfigError: launch.workers cannot be spread evenly.
    """
    if per_node is None and launch.workers % nodes:
        raise ConfigError(
            f"launch.workers={launch.workers} cannot be spread evenly over cluster.nodes={nodes}",
            "the same number of workers on each node (torchrun knows no other)",
            f"give launch.workers={max(1, launch.workers // nodes) * nodes}, or another cluster.nodes",
        )
    return per_node or launch.workers // nodes


def check_meeting_point(cluster: TorchrunCluster) -> None:
    """Several machines can meet.

    Raises:
        ConfigError: at an address that means another machine on each of them.
    """
    if cluster.nodes > 1 and cluster.rendezvous.startswith(("127.", "localhost:")):
        raise ConfigError(
            f"cluster.rendezvous={cluster.rendezvous} is each machine's own, with cluster.nodes={cluster.nodes}",
            "host:port of the first machine, as the others reach it",
            "give cluster.rendezvous=HOST:PORT",
        )


def train(job: Job, cluster: TorchrunCluster | SlurmCluster, workers: int) -> list[str]:
    """Words of the command of each process."""
    return job.train(cluster, *LOCAL, f"launch.workers={workers}")


def launcher(python: str, job: Job, nodes: int, per_node: int) -> list[str]:
    """Words that start one machine's processes; options of the meeting point and the command come after."""
    words = [python, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={per_node}"]
    return [*words, f"--max-restarts={job.launch.max_restarts}"]


def render(job: Job, cluster: TorchrunCluster, python: str = "python", node: int = 0) -> list[str]:
    """The command line of one machine; the first one (node 0) is where the others meet."""
    per_node = processes(job.launch, cluster.nodes, cluster.processes_per_node)
    start = launcher(python, job, cluster.nodes, per_node)
    if cluster.nodes == 1:
        start += ["--standalone"]
    else:
        start += ["--rdzv-backend=c10d", f"--rdzv-endpoint={cluster.rendezvous}", f"--rdzv-id={job.id}"]
        start += [f"--rdzv-conf=is_host={int(node == 0)}"]
    return [*start, "--no-python", *train(job, cluster, cluster.nodes * per_node)]


def environment(cluster: TorchrunCluster | SlurmCluster) -> dict[str, str]:
    """Environment variables of the processes; the interface where the host name does not lead to the right one."""
    network = {"GLOO_SOCKET_IFNAME": cluster.interface, "NCCL_SOCKET_IFNAME": cluster.interface}
    return {**cluster.environment, **{name: value for name, value in network.items() if value}}
