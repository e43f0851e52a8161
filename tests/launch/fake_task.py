"""A stand-in for training: writes the files of a run as the real worker does, and computes nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from generative.errors import DataError
from generative.training.runfolder import append_line, atomic_write
from launch.run import Task
from launch.schema import RunConfig

STEP_SECONDS = float(os.environ.get("FAKE_STEP_SECONDS", "0.05"))


def prepare(config: RunConfig, run_dir: Path, progress: Any) -> Any:
    return SimpleNamespace(
        parameters=1_300_000,
        flops=9.4e12,
        tokens=52_000,
        seconds=70.0,
        memory_bytes=400_000_000,
        description="fake text",
    )


def work(config: RunConfig, run_dir: Path, *, rank: int, world: int, attempt: int) -> None:
    (run_dir / "checkpoints").mkdir(exist_ok=True)
    append_line(run_dir / "pids.jsonl", {"rank": rank, "world": world, "attempt": attempt, "pid": os.getpid()})
    step = first = _newest(run_dir)
    steps = int(config.train.steps or 0)
    if rank == 0:
        kind = "resume" if step else "start"
        _event(run_dir, kind, step, f"goes on from step {step} of {steps}")
    while step < steps:
        stop = (run_dir / "stop").exists()
        if _agreed(stop):
            break
        time.sleep(STEP_SECONDS)
        step += 1
        if os.environ.get("FAKE_CRASH_AT") == str(step) and rank == world - 1:
            raise RuntimeError("the fake worker met its fate")
        if os.environ.get("FAKE_MISTAKE_AT") == str(step) and rank == world - 1:
            raise DataError("shard 3 is damaged", "a whole one", "prepare it again")
        if rank == 0:
            _log(config, run_dir, step, steps, first, attempt, world)
            if step % 10 == 0:
                _save(run_dir, step)
    if rank == 0:
        _end(config, run_dir, step, steps, attempt, world)


def _agreed(stop: bool) -> bool:
    """What rank 0 saw; a collective in each step, as in training, lets the others feel the loss of a worker."""
    import torch
    import torch.distributed as dist

    flag = torch.tensor([float(stop)])
    if dist.is_initialized():
        dist.broadcast(flag, src=0)
    return bool(flag.item())


def _newest(run_dir: Path) -> int:
    return max((int(p.name.removeprefix("step_")) for p in (run_dir / "checkpoints").glob("step_*")), default=0)


def _save(run_dir: Path, step: int) -> None:
    (run_dir / "checkpoints" / f"step_{step:06d}").mkdir(exist_ok=True)
    _event(run_dir, "checkpoint", step, f"step_{step:06d}")


def _event(run_dir: Path, kind: str, step: int, message: str) -> None:
    append_line(run_dir / "events.jsonl", {"time": time.time(), "kind": kind, "step": step, "message": message})


def _log(config: RunConfig, run_dir: Path, step: int, steps: int, first: int, attempt: int, world: int) -> None:
    append_line(run_dir / "metrics.jsonl", {"kind": "train", "step": step, "loss": {"fake": 5.0 / step}})
    _status(config, run_dir, "running", step, steps, attempt, world)


def _status(config: RunConfig, run_dir: Path, state: str, step: int, steps: int, attempt: int, world: int) -> None:
    before = json.loads((run_dir / "status.json").read_text())
    fields = {
        "state": state,
        "step": step,
        "steps": steps,
        "loss": 5.0 / max(step, 1),
        "tokens_per_second": 41_000.0,
        "eta_seconds": (steps - step) * STEP_SECONDS,
        "heartbeat": time.time(),
        "attempt": attempt,
        "restarts": attempt - 1,
        "lost_seconds": 0.0,
        "world": world,
        "pid": os.getpid(),
        "config": config.name,
        "checkpoint": f"step_{_newest(run_dir):06d}",
    }
    atomic_write(run_dir / "status.json", json.dumps(before | fields), durable=False)


def _end(config: RunConfig, run_dir: Path, step: int, steps: int, attempt: int, world: int) -> None:
    state = "complete" if step == steps else "interrupted"
    _save(run_dir, step)
    _status(config, run_dir, state, step, steps, attempt, world)
    atomic_write(run_dir / "outcome.json", json.dumps({"state": state, "exit_code": 75 if step < steps else 0}))


def report(run_dir: Path) -> None:
    (run_dir / "report.html").write_text("fake")


TASK = Task(prepare, work, report)
