"""A run as a Slurm job: a bash script for sbatch.

The script trains on a Ray cluster of its own (or under torchrun), which lives as long as the job. Slurm warns it before
the time limit: the run then saves and leaves with exit code 75, and the job goes back into the queue.
"""

from __future__ import annotations

import shlex

from launch.cluster_schema import SlurmCluster
from launch.ray_cluster import NO_IDLE_WORKERS
from launch.templates import torchrun
from launch.templates.job import Job, exports, shell

FIRST_PORT, PORTS = 20000, 20000
"""Where no port is given: one in this range that follows from the job's number, so that jobs on one node differ."""


def render(job: Job, cluster: SlurmCluster, directory: str) -> str:
    """The script.

    Args:
        directory: folder that the job runs in.
    """
    parts = [_header(job, cluster), _set_up(job, cluster, directory), _FAIL, _meeting_point(cluster)]
    parts += [_STOP[cluster.launcher], _SIGNALS]
    parts.append(_torchrun(job, cluster) if cluster.launcher == "torchrun" else _ray(job, cluster))
    return "\n".join([*parts, _end(cluster)])


def _header(job: Job, cluster: SlurmCluster) -> str:
    folder = job.folder.replace("%", "%%")
    wanted = {
        "job-name": job.id,
        "nodes": cluster.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cluster.cpus_per_node,
        "gpus-per-node": cluster.gpus_per_node or None,
        "mem": cluster.memory_per_node,
        "time": cluster.time,
        "partition": cluster.partition,
        "account": cluster.account,
        "output": f"{folder}/logs/slurm-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{cluster.notice_seconds}",
    }
    options = [f"--{key}={shlex.quote(str(value))}" for key, value in wanted.items() if value is not None]
    options += ["--requeue" if cluster.requeue else "--no-requeue", *map(shlex.quote, cluster.options)]
    about = f"# The run {job.run}. Submitted again, it goes on where it was."
    return "\n".join(["#!/bin/bash", about, *(f"#SBATCH {option}" for option in options), *_STRICT, ""])


def _set_up(job: Job, cluster: SlurmCluster, directory: str) -> str:
    lines = [f"run={shlex.quote(job.folder)}", f"cd {shlex.quote(directory)}"]
    lines += [f"module load {shlex.quote(module)}" for module in cluster.modules]
    if cluster.venv:
        lines += ["# shellcheck disable=SC1091", f"source {shlex.quote(cluster.venv)}/bin/activate"]
    lines += exports({**torchrun.environment(cluster), "RAY_USAGE_STATS_ENABLED": "0", **NO_IDLE_WORKERS})
    return "\n".join([*lines, ""])


_STRICT = ("", "# Settings are passed on as they are.", "# shellcheck disable=SC2016", "set -euo pipefail")
_FAIL = """\
fail() {
    echo "$1" >&2
    exit 3
}
"""

_STOP = {
    "ray": """\
# shellcheck disable=SC2329
stop_training() {
    [ -z "$trainer" ] || kill -TERM "$trainer" 2>/dev/null || true
}
""",
    "torchrun": """\
# The workers look for this file; a signal would make torchrun kill them while they save.
# shellcheck disable=SC2329
stop_training() {
    [ -z "$trainer" ] || touch "$run/stop"
}
""",
}

_SIGNALS = """\
# USR1 comes before the time is up: save, leave, queue again. TERM (scancel --batch --signal=TERM): save and leave.
trainer="" told="" again=""
trap 'told=1; again=1; stop_training' USR1
trap 'told=1; stop_training' TERM

# Waits for the trainer through signals; its exit code is in `code`.
wait_for_trainer() {
    while true; do
        told="" code=0
        wait "$trainer" || code=$?
        [ -n "$told" ] || break
    done
}
"""


def _meeting_point(cluster: SlurmCluster) -> str:
    """Shell lines that find the nodes, and the address and port of the first, on which the script runs."""
    if cluster.interface:
        find = f"ip -o -4 addr show dev {shlex.quote(cluster.interface)} | awk '{{print $4; exit}}' | cut -d/ -f1"
    else:
        find = "hostname -I | awk '{print $1}'"
    port = str(cluster.port) if cluster.port else f"$((SLURM_JOB_ID % {PORTS} + {FIRST_PORT}))"
    return f"""\
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$({find})
port={port}
[ -n "$address" ] || fail "this node has no address: set cluster.interface to the network between the nodes"
"""


def _step(cluster: SlurmCluster, nodes: str) -> str:
    """`srun` for one process on each of some nodes, beside whatever runs there already."""
    gpus = f" --gpus-per-node={cluster.gpus_per_node}" if cluster.gpus_per_node else ""
    return f"srun --overlap {nodes} --ntasks-per-node=1 --cpus-per-task={cluster.cpus_per_node}{gpus}"


def _inside(cluster: SlurmCluster) -> str:
    """What a command begins with that runs in the container."""
    if cluster.container is None:
        return ""
    return f"apptainer exec {'--nv ' if cluster.gpus_per_node else ''}{shlex.quote(cluster.container)} "


def _ray(job: Job, cluster: SlurmCluster) -> str:
    inside, limit = _inside(cluster), cluster.start_seconds
    start = f"{inside}ray start --block --num-cpus={cluster.cpus_per_node} --num-gpus={cluster.gpus_per_node}"
    start += " --disable-usage-stats --min-worker-port=0 --max-worker-port=0"
    head = f'{start} --head --node-ip-address="$address" --port="$port" --include-dashboard=false'
    head += ' --ray-client-server-port="$((port + 1))" --temp-dir="$ray_folder"'
    train = shell(job.train(cluster, "launch.backend=ray"))
    return f"""\
# Others on these nodes must not reach the cluster. The secret stays in the environment.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
# The cluster ends after its driver: there is nothing to drain.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
ray_folder=/tmp/ray-$SLURM_JOB_ID
steps=()
# shellcheck disable=SC2329
end_cluster() {{
    [ "${{#steps[@]}}" -eq 0 ] || kill -TERM "${{steps[@]}}" 2>/dev/null || true
    timeout 60 {_step(cluster, '--nodes="${#nodes[@]}"')} rm -rf "$ray_folder" || true
}}
trap end_cluster EXIT

{_step(cluster, '--nodes=1 --nodelist="${nodes[0]}"')} \\
    {head} \
    >>"$run/logs/ray_head.log" 2>&1 &
steps+=("$!")
until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do
    [ "$SECONDS" -lt {limit} ] || fail "no Ray head after {limit} s: see $run/logs/ray_head.log"
    sleep 1
done
if [ "${{#nodes[@]}}" -gt 1 ]; then
    others=$(IFS=,; echo "${{nodes[*]:1}}")
    {_step(cluster, '--nodes="$((${#nodes[@]} - 1))" --nodelist="$others"')} \\
        {start} --address="$address:$port" >>"$run/logs/ray_nodes.log" 2>&1 &
    steps+=("$!")
fi
{inside}python -m launch.ray_nodes "$address:$port" "${{#nodes[@]}}" {limit}

code=75
if [ -z "$told" ]; then
    {inside}{train} launch.address="$address:$port" &
    trainer=$!
    wait_for_trainer
fi
"""


def _torchrun(job: Job, cluster: SlurmCluster) -> str:
    per_node = torchrun.processes(job.launch, cluster.nodes)
    start = shell(torchrun.launcher("python", job, cluster.nodes, per_node))
    train = shell(torchrun.train(job, cluster, cluster.nodes * per_node))
    return f"""\
code=75
if [ -z "$told" ]; then
    # torchrun's own guess, whether a node is the first, fails where the name of a node does not lead to its address.
    {_step(cluster, '--nodes="${#nodes[@]}"')} --kill-on-bad-exit=1 \\
        bash -c 'export PET_RDZV_CONF=is_host=$((SLURM_NODEID == 0)); exec "$@"' torchrun \\
        {_inside(cluster)}{start} \\
        --rdzv-backend=c10d --rdzv-endpoint="$address:$port" --rdzv-id="$SLURM_JOB_ID" \\
        --no-python {train} &
    trainer=$!
    wait_for_trainer
    # torchrun has no exit code of its own for a run that was interrupted.
    if [ "$code" -eq 0 ] && grep -q '"state": "interrupted"' "$run/outcome.json"; then
        code=75
    fi
fi
"""


def _end(cluster: SlurmCluster) -> str:
    return f"""\
if [ "$code" -eq 75 ] && [ -n "$again" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {cluster.requeue} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
