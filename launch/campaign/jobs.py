"""What is to be run: a job for each cell, and one for each stretch of a trunk that several cells branch off.

A trunk is trained once, at a constant learning rate, to each step s_d where a cell of S steps leaves it; the cell takes
over its checkpoint (weights, optimizer, place in the data) and decays to 0 in the last S - s_d steps. The result is
bit for bit that of a run of S steps with the whole schedule.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from generative.errors import ConfigError
from generative.training.config import ScheduleConfig
from launch.campaign.cells import Cell, digest, settings_of, trunk_warmup, with_schedule
from launch.campaign.grid import Grid
from launch.campaign.schema import CampaignConfig
from launch.schema import RunConfig


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Args:
        name: for people.
        hash: of what changes its result.
        run: the configuration that is trained.
        folder: of the run, below that of the campaign.
        first: step that it begins at.
        flops: of its own steps, by the campaign's convention.
        cell: whose result it gives; None for a stretch of a trunk.
        after: hash of the job that must be done before.
        heirs: folders that get its last checkpoint.
        rank: larger ones are begun first: FLOPs of it and of all that waits for it.
    """

    name: str
    hash: str
    run: RunConfig
    folder: str
    first: int
    flops: float
    cell: Cell | None
    after: str | None = None
    heirs: tuple[str, ...] = ()
    rank: float = 0.0

    @property
    def steps(self) -> int:
        """Step that it ends at."""
        assert self.run.train.steps is not None
        return self.run.train.steps


def jobs_of(config: CampaignConfig, grid: Grid) -> tuple[Job, ...]:
    """All jobs, each after what it waits for."""
    if config.wsd is None:
        return tuple(_whole(config, cell) for cell in grid.cells)
    trunks: dict[str, list[Cell]] = defaultdict(list)
    for cell in grid.cells:
        trunks[_trunk_key(cell)].append(cell)
    return tuple(job for cells in trunks.values() for job in _trunk_jobs(config, cells))


def folder_of(config: CampaignConfig, job: Job) -> Path:
    """The run folder of a job."""
    return Path(config.folder).absolute() / job.folder


def _whole(config: CampaignConfig, cell: Cell) -> Job:
    folder = f"cells/{cell.name}-{cell.hash[:6]}"
    return Job(cell.name, cell.hash, _in(config, cell.run, folder), folder, 0, cell.flops, cell, rank=cell.flops)


def _in(config: CampaignConfig, run: RunConfig, folder: str) -> RunConfig:
    path = Path(config.folder).absolute() / folder
    return run.model_copy(update={"run": run.run.model_copy(update={"dir": str(path)})})


def _trunk_key(cell: Cell) -> str:
    """Equal for cells that differ in their length alone."""
    return digest([cell.family, {k: v for k, v in settings_of(cell.run).items() if k != "train.steps"}])


def _trunk_jobs(config: CampaignConfig, cells: list[Cell]) -> list[Job]:
    """The stretches of one trunk and its branches; a rank goes down the chain of what waits."""
    wsd = config.wsd
    assert wsd is not None
    warmup = trunk_warmup(config, cells)
    _refuse_short(cells, warmup)
    constant = ScheduleConfig(name="constant", warmup_steps=warmup)
    branches: dict[int, list[Cell]] = defaultdict(list)
    for cell in cells:
        branches[max(warmup, cell.steps - max(1, round(wsd.decay * cell.steps)))].append(cell)
    one = cells[0]
    trunk = {k: v for k, v in settings_of(with_schedule(one.run, constant, 1)).items() if k != "train.steps"}
    name, mark = f"{one.family}-{one.size}-s{one.seed}", digest(trunk)
    folder, step_flops = f"trunks/{name}-{mark[:6]}", one.flops_per_token * one.step_tokens
    jobs: list[Job] = []
    begun, before = 0, None
    for cut in sorted(branches):
        own = [_branch(config, cell, warmup, cut, mark) for cell in branches[cut]]
        run = with_schedule(one.run, constant, cut)
        run = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"at_end": False})})
        stretch = Job(
            f"trunk-{name}-{cut}", digest([mark, cut]), _in(config, run, folder), folder, begun,
            (cut - begun) * step_flops, None, before, tuple(job.folder for job in own),
        )  # fmt: skip
        jobs += [stretch, *(replace(job, after=stretch.hash) for job in own)]
        begun, before = cut, stretch.hash
    waiting = 0.0
    ranked: list[Job] = []
    for job in reversed(jobs):
        waiting += job.flops
        ranked.append(replace(job, rank=waiting if job.cell is None else job.flops))
    return ranked[::-1]


def _refuse_short(cells: list[Cell], warmup: int) -> None:
    shortest = min(cells, key=lambda cell: cell.steps)
    if shortest.steps <= warmup:
        raise ConfigError(
            f"{shortest.name}: a warm-up of {warmup} steps leaves nothing of its {shortest.steps} steps to decay in",
            "cells that are longer than the warm-up of their trunk",
            "lower wsd.warmup_steps, or raise the budget (or min_steps, to leave such cells out)",
        )


def _branch(config: CampaignConfig, cell: Cell, warmup: int, cut: int, trunk: str) -> Job:
    """A cell from the trunk's step `cut` on."""
    share = (cell.steps - cut) / max(cell.steps - warmup, 1)
    falling = ScheduleConfig(name="wsd", warmup_steps=warmup, decay_fraction=min(share, 1.0), min_ratio=0.0)
    cell = replace(cell, run=with_schedule(cell.run, falling, cell.steps), trunk=(trunk, cut))
    folder = f"cells/{cell.name}-{cell.hash[:6]}"
    own = (cell.steps - cut) * cell.step_tokens * cell.flops_per_token
    return Job(cell.name, cell.hash, _in(config, cell.run, folder), folder, cut, own, cell)
