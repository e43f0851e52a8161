"""What the strategies cost: step times against direct use of their libraries, memory of a rank, checkpoint speed.

Each strategy has a group of processes of its own (DeepSpeed changes torch for a whole process). Within it, a step of
the trainer and one of a loop written by hand take turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.parallel_worker import Job
from evaluation.benchmarks.timing import interleave
from evaluation.estimate import Estimate, ratio_of_medians
from generative.training.checkpoint import CheckpointStore, Entry

GOALS = {"ddp": "<= 1.03", "fsdp": "<= 1.05", "zero1": "<= 1.05", "zero2": "<= 1.05", "zero3": "<= 1.05"}
TIMED = 2
"""Workers of the groups whose steps are timed."""
LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        pairs: steps of each loop that are compared, by strategy.
        worlds: numbers of workers in the table of memory.
        megabytes: of the checkpoint that is written and read.
        repeats: writes and reads.
        width, layers, length, batch_size: of the network and its batches.
    """

    pairs: int = 120
    worlds: tuple[int, ...] = (1, 2, 4)
    megabytes: int = 200
    repeats: int = 7
    width: int = 256
    layers: int = 4
    length: int = 128
    batch_size: int = 16


QUICK = Settings(pairs=6, worlds=(1, 2), megabytes=20, repeats=2, width=64, layers=2)


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    settings = QUICK if quick else Settings()
    with tempfile.TemporaryDirectory() as folder:
        base = Job("ddp", 0, settings.batch_size, settings.width, settings.layers, settings.length, folder, "")
        timed = timings(settings, base)
        figures = ratios(timed)
        table, shares = memory(settings, base, timed)
        say(table)
        return figures | shares | checkpoint_speed(settings, Path(folder))


def timings(settings: Settings, base: Job) -> dict[str, dict[str, Any]]:
    """What groups of `TIMED` workers found, by strategy."""
    found = {}
    for strategy in GOALS:
        say(f"{strategy}: {settings.pairs} steps of each loop")
        found[strategy] = group(replace(base, strategy=strategy, pairs=settings.pairs), TIMED)
    return found


def ratios(timed: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """Step time of the trainer over that of the direct loop, by strategy."""
    figures = {}
    for strategy, goal in GOALS.items():
        found = timed[strategy]
        note = f"{TIMED} gloo processes of one thread, {statistics.median(found['direct']) * 1e3:.0f} ms a direct step"
        figures[f"{strategy}_ratio"] = figure(ratio_of_medians(found["ours"], found["direct"]), goal, note)
        say(f"{strategy}: {figures[f'{strategy}_ratio']['value']:.3f} ({note})")
    return figures


def memory(settings: Settings, base: Job, timed: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Figure]]:
    """What rank 0 holds by strategy and number of workers: a table, and the share of the largest group as figures."""
    lines, figures = ["MB on rank 0         workers   parameters   gradients   optimizer"], {}
    for strategy in GOALS:
        groups = {
            world: timed[strategy] if world == TIMED else group(replace(base, strategy=strategy), world)
            for world in settings.worlds
        }
        held = {world: found["memory"] for world, found in groups.items()}
        for world, parts in held.items():
            sizes = "   ".join(f"{parts[part] / 1e6:9.2f}" for part in ("parameters", "gradients", "optimizer"))
            lines.append(f"{strategy:<20} {world:7}   {sizes}")
        first, last = (held[world] for world in (settings.worlds[0], settings.worlds[-1]))
        for part in ("parameters", "optimizer"):
            note = f"bytes on rank 0 of {settings.worlds[-1]} workers over those of one"
            figures[f"{strategy}_{part}_share"] = figure(Estimate(last[part] / first[part], None, 1, "", note))
    return "\n".join(lines), figures


def checkpoint_speed(settings: Settings, folder: Path) -> dict[str, Figure]:
    """MB per second of our writing (hashed, flushed, committed) and reading, against a plain safetensors file."""
    count = settings.megabytes * 250_000 // 16
    tensors = {f"layer.{i}.weight": torch.randn(count) for i in range(16)}
    size = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
    store, steps, plain = (
        CheckpointStore(folder / "store", keep_last=1),
        iter(range(1, 1000)),
        folder / "plain.safetensors",
    )

    def ours() -> None:
        store.save(next(steps), {name: Entry(tensor) for name, tensor in tensors.items()}, {}, asynchronous=False)

    def theirs() -> None:
        save_file(tensors, plain)
        with open(plain, "rb") as file:
            os.fsync(file.fileno())

    def read_ours() -> None:
        checkpoint = store.newest()
        assert checkpoint is not None
        for name in checkpoint.names():
            checkpoint.tensor(name)
        checkpoint.close()

    def read_theirs() -> None:
        for tensor in load_file(plain).values():
            tensor.sum()

    return _speed("write", ours, theirs, size, settings) | _speed("read", read_ours, read_theirs, size, settings)


def _speed(
    verb: str, ours: Callable[[], None], theirs: Callable[[], None], size: float, settings: Settings
) -> dict[str, Figure]:
    mine, plain = interleave(ours, theirs, settings.repeats, warmup=1)
    checked = "hashed and flushed" if verb == "write" else "all hashes compared first"
    note = f"{size:.0f} MB, one rank, {checked}; a plain safetensors file: {size / statistics.median(plain):,.0f} MB/s"
    speed = Estimate(size / statistics.median(mine), None, len(mine), "MB/s", note)
    return {
        f"checkpoint_{verb}": figure(speed),
        f"checkpoint_{verb}_time_ratio": figure(ratio_of_medians(mine, plain), None, note),
    }


# ---------------------------------------------------------------------- processes


def group(job: Job, world: int) -> dict[str, Any]:
    """Run a job on so many processes; what rank 0 found.

    Raises:
        RuntimeError: a process failed; its last words are in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, port = Path(folder) / "result.json", _free_port()
        command = [sys.executable, "-m", "evaluation.benchmarks.parallel_worker", replace(job, out=str(out)).text()]
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(_process(command, rank, world, port, folder)) for rank in range(world)]
            deadline = time.monotonic() + LIMIT_SECONDS
            while any(process.poll() is None for process in started) and time.monotonic() < deadline:
                if any(process.poll() for process in started):
                    break  # a rank has failed: the others would wait for it
                time.sleep(0.05)
        failed = [rank for rank, process in enumerate(started) if process.returncode]
        if failed or not out.exists():
            rank = failed[0] if failed else 0
            words = (Path(folder) / f"{rank}.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"rank {rank} of {world} under {job.strategy} failed:\n{words}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


@contextlib.contextmanager
def _process(
    command: Sequence[str], rank: int, world: int, port: int, folder: str
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    with open(Path(folder) / f"{rank}.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
