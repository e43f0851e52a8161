"""One job, in whatever process: train from wherever its folder stands, measure, hand the trunk's checkpoint on."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.scaling.flops import training_flops_per_token
from evaluation.scaling.points import diverged
from evaluation.scaling.shapes import parameters
from generative.errors import GenerativeError
from generative.training.checkpoint.format import step_folder
from generative.training.checkpoint.rotation import complete_steps
from generative.training.monitor import lost_work
from generative.training.runfolder import atomic_write, read_lines
from launch.campaign.cells import Cell
from launch.campaign.jobs import Job
from launch.campaign.ledger import DIVERGED, DONE, FAILED, PLANNED
from launch.folder import clear_requests, read_json, record_event, update_status
from launch.stopping import INTERRUPTED

ANOMALY = 4
"""Exit code of a run that stopped on a loss that is not finite."""


@dataclass(frozen=True)
class Ended:
    """How one start of a job ended.

    Args:
        state: done, failed, diverged; planned for one that was interrupted and goes on later.
        cause: of a failure.
        result: of a cell that is done, as the ledger keeps it.
        spent: FLOPs of its own steps.
        wasted: FLOPs of steps that were lost.
        again: whether another try could help.
        seconds: of this start.
    """

    state: str
    cause: str = ""
    result: Mapping[str, Any] | None = None
    spent: float = 0.0
    wasted: float = 0.0
    again: bool = False
    seconds: float = 0.0


def work(job: Job, root: Path, start: int, address: str | None = None) -> Ended:
    """Run a job to its end, in this process or by workers that it leads; crashes raise, everything else is told.

    Args:
        job: what to run.
        root: folder of the campaign.
        start: number of this start, from 1.
        address: of the Ray cluster, for jobs of several workers.
    """
    job = placed(job, root)
    began, folder = time.monotonic(), root / job.folder
    lost = begin(job, folder, start)
    if finished(job, folder):
        state: dict[str, Any] = {"state": "complete"}
    else:
        state = _alone(job, folder) if job.run.launch.workers == 1 else _led(folder, address)
    return ended(job, root, state, lost, time.monotonic() - began)


def _alone(job: Job, folder: Path) -> dict[str, Any]:
    """Train as the only worker; the outcome."""
    from launch.worker import run_worker

    run_worker(job.run, folder, rank=0, world=1, attempt=1)
    return read_json(folder / "outcome.json")


def _led(folder: Path, address: str | None) -> dict[str, Any]:
    """Train as `generative train` does, with a group of workers on the cluster; the outcome."""
    from launch.run import train

    try:
        code = train(str(folder / "config.yaml"), [f"launch.address={address}"])
    except GenerativeError as error:
        told = {"state": "failed", "problem": error.problem, "exit_code": error.exit_code}
        return read_json(folder / "outcome.json") or told
    return read_json(folder / "outcome.json") or {"state": "interrupted" if code == INTERRUPTED else ""}


def placed(job: Job, root: Path) -> Job:
    """The job; a trunk that is beyond its last step already (a budget was added) is trained again, elsewhere."""
    there = complete_steps(root / job.folder / "checkpoints")
    if job.cell is not None or job.steps in there or not there or there[-1] < job.steps:
        return job
    folder = f"{job.folder}-{job.steps}"
    run = job.run.model_copy(update={"run": job.run.run.model_copy(update={"dir": str(root / folder)})})
    each = job.flops / max(job.steps - job.first, 1)
    return replace(job, folder=folder, run=run, first=0, flops=each * job.steps)


def begin(job: Job, folder: Path, start: int) -> int:
    """Make the run folder ready; returns the steps that the last start lost."""
    from generative.config import to_yaml

    (folder / "logs").mkdir(parents=True, exist_ok=True)
    clear_requests(folder)
    atomic_write(folder / "config.yaml", to_yaml(job.run))
    newest = max(complete_steps(folder / "checkpoints"), default=0)
    lost, _ = lost_work(folder, newest)
    update_status(
        folder, state="starting", config=job.run.name, pid=os.getpid(), world=job.run.launch.workers, message=""
    )
    if start > 1:
        record_event(folder, "start", f"start {start} of this job: from step {newest}, {lost} steps are done again")
    return lost


def finished(job: Job, folder: Path) -> bool:
    """Whether the folder has all that the job makes: its driver may have died before it could book that."""
    there = complete_steps(folder / "checkpoints")
    measured = job.cell is None or read_json(folder / "evaluation.json").get("step") == job.steps
    return bool(there) and there[-1] >= job.steps and measured


def ended(job: Job, root: Path, outcome: Mapping[str, Any], lost: int, seconds: float) -> Ended:
    """What an outcome means for the campaign."""
    folder, each = root / job.folder, job.flops / max(job.steps - job.first, 1)
    waste = lost * each
    step = max(complete_steps(folder / "checkpoints"), default=job.first)
    state = outcome.get("state")
    if state == "interrupted":
        return Ended(PLANNED, wasted=waste, seconds=seconds)
    if state == "failed":
        kind = DIVERGED if outcome.get("exit_code") == ANOMALY else FAILED
        reached = max(step - job.first, 0) * each if kind == DIVERGED else 0.0
        again = kind == FAILED and outcome.get("exit_code") != 2
        return Ended(kind, str(outcome.get("problem")), wasted=waste + reached, again=again, seconds=seconds)
    if state != "complete":
        return Ended(FAILED, "ended without saying how", wasted=waste, again=True, seconds=seconds)
    if diverged([loss for at, loss in zip(*losses(folder), strict=True) if at <= job.steps]):
        why = "the loss stayed above twice its lowest value"
        return Ended(DIVERGED, why, wasted=waste + job.flops, seconds=seconds)
    if job.cell is None:
        for heir in job.heirs:
            hand_on(folder / "checkpoints", root / heir / "checkpoints", job.steps)
        return Ended(DONE, spent=job.flops, wasted=waste, seconds=seconds)
    found = result(job.cell, folder, seconds)
    if not math.isfinite(found["loss"]):
        return Ended(DIVERGED, f"the loss is {found['loss']}", wasted=waste + job.flops, seconds=seconds)
    return Ended(DONE, result=found, spent=job.flops, wasted=waste, seconds=seconds)


def hand_on(trunk: Path, heir: Path, step: int) -> None:
    """Give a cell the trunk's checkpoint of a step; files are shared where the disk can (they never change)."""
    source, target = trunk / step_folder(step), heir / step_folder(step)
    if target.exists():
        return
    heir.mkdir(parents=True, exist_ok=True)
    aside = heir / f"{step_folder(step)}.tmp-handed-{uuid.uuid4().hex[:8]}"
    shutil.copytree(source, aside, copy_function=_link)
    os.rename(aside, target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def losses(folder: Path) -> tuple[list[int], list[float]]:
    """(steps, training losses) of a run folder; NaN where a loss was not finite."""
    rows = [row for row in read_lines(folder / "metrics.jsonl") if row.get("kind") == "train"]
    found = [next(iter(row["loss"].values())) for row in rows]
    return [int(row["step"]) for row in rows], [math.nan if value is None else float(value) for value in found]


def result(cell: Cell, folder: Path, seconds: float) -> dict[str, Any]:
    """What the ledger keeps of a cell: its loss, and N, D and C in every convention."""
    evaluation = read_json(folder / "evaluation.json")
    name, loss = next((k, v) for k, v in evaluation["figures"].items() if k.endswith("_nats_per_token"))
    shape = cell.shape
    return {
        "loss": math.nan if loss["value"] is None else loss["value"],
        "stderr": loss["stderr"],
        "loss_name": name.removesuffix("_nats_per_token"),
        "bound": loss["bound"],
        "protocol": loss["protocol"],
        "N": cell.N,
        "D": cell.tokens,
        "C": cell.flops,
        "count": cell.count,
        "steps": cell.steps,
        "seconds": seconds,
        "learning_rate": cell.run.train.optimizer.lr,
        "batch": cell.run.train.batch_size,
        "schedule": cell.run.train.schedule.name,
        "seq_len": shape.length,
        "attention": "causal" if shape.causal else "bidirectional",
        "flops_per_token": training_flops_per_token(shape),
        **parameters(shape).to_json(),
    }
