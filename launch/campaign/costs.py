"""What a campaign costs: FLOPs, time on a machine with so many slots, memory and price, before anything starts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.quantities import compact, duration
from launch.campaign.cells import shown
from launch.campaign.grid import Grid
from launch.campaign.jobs import Job
from launch.campaign.schema import CampaignConfig
from launch.machines import load_machine
from launch.modality import build_method, modality
from launch.plan import measured_flops, outline, step_flops


@dataclass(frozen=True)
class Costs:
    """A campaign before it starts.

    Args:
        flops: of all jobs, by the campaign's convention; trunks count once.
        law: sum of C over cells: what the laws see.
        device_seconds: of all jobs on one device, at `mfu`.
        seconds: wall-clock with `slots` at once, largest first.
        slots: cells at once.
        machine: name.
        price: dollars; None where the machine has none.
        memory: of the largest cell, bytes without activations, and its name.
        left: (flops, seconds) of what is not done yet.
    """

    flops: float
    law: float
    device_seconds: float
    seconds: float
    slots: int
    machine: str
    price: float | None
    memory: tuple[int, str]
    left: tuple[float, float]


def devices(job: Job) -> int:
    """Workers of a job."""
    return int(job.run.launch.workers)


def costs(config: CampaignConfig, grid: Grid, jobs: Sequence[Job], done: Collection[str] = ()) -> Costs:
    """Costs of all jobs, and of those not in `done`."""
    price: float | None = None
    if config.plan.machine is None:
        peak, name = measured_flops(jobs[0].run), "this machine"
        price = config.plan.price_per_hour
    else:
        machine = load_machine(config.plan.machine)
        peak, name = machine.peak_flops(jobs[0].run.train.precision), config.plan.machine
        price = machine.price_per_hour if config.plan.price_per_hour is None else config.plan.price_per_hour
    rate = config.plan.mfu * peak
    known: dict[tuple[str, str, int], float] = {}
    work = {job.hash: _arithmetic(job, known) for job in jobs}
    each = {key: flops / rate for key, flops in work.items()}
    slots = config.launch.slots or _room(config, jobs)
    largest = max(grid.cells, key=lambda cell: cell.N)
    whole = sum(each.values())
    undone = [job for job in jobs if job.hash not in done]
    return Costs(
        flops=sum(job.flops for job in jobs),
        law=sum(cell.flops for cell in grid.cells),
        device_seconds=whole,
        seconds=makespan(jobs, each, slots),
        slots=slots,
        machine=name,
        price=None if price is None else whole / 3600 * price,
        memory=(_memory(largest.run), largest.name),
        left=(sum(job.flops for job in undone), makespan(undone, each, slots)),
    )


def _room(config: CampaignConfig, jobs: Sequence[Job]) -> int:
    """Cells that run at once on this machine, a core a worker, where nothing else is said."""
    from launch.environment import cores

    if config.launch.backend == "local" or config.launch.address or config.plan.machine:
        return 1
    return max(1, cores() // max(map(devices, jobs)))


def _arithmetic(job: Job, known: dict[tuple[str, str, int], float]) -> float:
    """Products that the job's own steps run, by the method's own count."""
    network = job.run.method.network
    key = (job.run.method.name, network.model_dump_json(), job.run.train.batch_size)
    if key not in known:
        facts = modality(job.run).known_facts(job.run)
        known[key] = float(step_flops(job.run, build_method(job.run, facts), facts))
    return known[key] * (job.steps - job.first)


def _memory(run: Any) -> int:
    """Bytes of weights, gradients, optimizer and averages of a rank."""
    facts = modality(run).known_facts(run)
    return int(outline(run, build_method(run, facts), facts, "", world=run.launch.workers).memory_bytes)


def makespan(jobs: Sequence[Job], seconds: dict[str, float], slots: int) -> float:
    """Wall-clock of the jobs on so many slots, the largest of those that are ready first."""
    waiting, there = {job.hash: job for job in jobs}, {job.hash for job in jobs}
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        ready = [job for job in waiting.values() if job.after not in there]
        ready.sort(key=lambda job: -job.rank)
        for job in ready[: slots - len(running)]:
            workers = max(1, devices(job))
            heapq.heappush(running, (now + seconds[job.hash] / workers, job.hash))
            del waiting[job.hash]
        now, finished = heapq.heappop(running)
        there.discard(finished)
    return now


def plan_lines(config: CampaignConfig, grid: Grid, jobs: Sequence[Job], told: Costs) -> list[tuple[str, str]]:
    """(label, text) of a plan."""
    cells = grid.cells
    families = list(config.families)
    budgets = sorted({cell.budget for cell in cells})
    sizes = {(cell.family, cell.size) for cell in cells}
    most = max(len({size for family, size in sizes if family == name}) for name in families)
    many = "y" if len(families) == 1 else "ies"
    lines = [
        (
            "plan",
            f"{config.name} · {len(cells)} cells · {len(families)} famil{many} x {len(budgets)} budgets x {most} sizes"
            f" · {shown(told.law)} FLOP ({config.count})",
        ),
        ("budgets", ", ".join(map(shown, budgets)) + " FLOP"),
    ]
    for name in families:
        own = [cell for cell in cells if cell.family == name]
        low, high = min(own, key=lambda c: c.N), max(own, key=lambda c: c.N)
        steps, tokens = [cell.steps for cell in own], [cell.tokens for cell in own]
        lines.append(
            (
                name,
                f"{len(own)} cells · N {compact(low.N, ' ')} to {compact(high.N, ' ')} · "
                f"{min(steps):,} to {max(steps):,} steps · "
                f"D {compact(min(tokens), ' ')} to {compact(max(tokens), ' ')} tokens",
            )
        )
    if config.wsd is not None:
        trunks = len({job.folder for job in jobs if job.cell is None})
        saved = 1 - told.flops / told.law
        lines.append(
            ("wsd", f"{trunks} trunks serve {len(cells)} cells: {shown(told.flops)} FLOP to train, {saved:.0%} saved")
        )
    lines.append(("rule", f"{config.rule} · seeds {', '.join(map(str, sorted({cell.seed for cell in cells})))}"))
    workers = max(map(devices, jobs))
    lines += _cost_lines(config, told, workers)
    if grid.left_out:
        why = Counter(key for _, key, _ in grid.left_out)
        lines.append(("left out", ", ".join(f"{count} cells by {key}" for key, count in why.items())))
    return lines


def _cost_lines(config: CampaignConfig, told: Costs, workers: int) -> list[tuple[str, str]]:
    hours = told.device_seconds / 3600
    each = f", up to {workers} workers each" if workers > 1 else ""
    rate = f"{config.plan.mfu:.0%} MFU (plan.mfu, an assumption)"
    lines = [
        (
            "time",
            f"{duration(told.seconds)} with {told.slots} cell{'s' if told.slots > 1 else ''} at once{each} · "
            f"{hours:,.3g} device-hours on {told.machine} at {rate}",
        ),
        ("memory", f"{told.memory[0] / 1e9:.3g} GB a rank for {told.memory[1]}, activations not counted"),
    ]
    if workers > 1 and config.launch.backend == "local":
        lines.append(("warning", f"launch.workers={workers}: `campaign run` refuses that with launch.backend=local"))
    if told.price is not None:
        lines.append(("cost", f"about ${told.price:,.0f} (the price of an hour is an assumption)"))
    limit = config.limit.flops
    if limit is not None:
        verdict = f"{limit / told.flops - 1:.0%} above it" if limit >= told.flops else "the grid will not be finished"
        lines.append(("limit", f"{shown(limit)} FLOP · the grid costs {shown(told.flops)}: {verdict}"))
    return lines
