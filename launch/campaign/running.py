"""`generative campaign run`: data first, then the driver, on Ray or in this process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial

from evaluation.quantities import duration
from generative.errors import ConfigError
from generative.training.runfolder import check_writable, write_json
from launch.campaign.costs import costs, plan_lines
from launch.campaign.driver import Driver, Halt
from launch.campaign.ledger import CANCELLED, DIVERGED, DONE, FAILED, totals
from launch.campaign.opened import Campaign
from launch.campaign.passes import DATA_FILE, passes, unique_tokens
from launch.campaign.pools import LocalPool, Pool, RayPool
from launch.console import Console, bar_progress
from launch.sections import LaunchConfig
from launch.stopping import INTERRUPTED, StopRequest, stop_on_signals

LOST = (FAILED, DIVERGED, CANCELLED)
"""Jobs that give no result; each is told, and the exit code says that there are some."""


def run_campaign(campaign: Campaign, console: Console) -> int:
    """Run what is left of a campaign.

    Returns:
        0 where every cell is done or beyond the limit, 1 where some gave no result (each is told), 75 where the same
        command goes on with it.

    Raises:
        GenerativeError: configuration, data, ledger, or no cluster.
    """
    config, folder = campaign.config, campaign.folder
    _refuse_groups(campaign)
    check_writable(folder)
    for old in campaign.ledger.plan(campaign.jobs):
        console.line("note", f"{old} is in the ledger, but not in this configuration: it is left alone")
    entries = campaign.entries()
    done = {key for key, entry in entries.items() if entry.state == DONE}
    told = costs(config, campaign.grid, campaign.jobs, done)
    for label, text in plan_lines(config, campaign.grid, campaign.jobs, told):
        console.line(label, text)
    if done:
        console.line("resume", f"{len(done)} of {len(campaign.jobs)} jobs are done; {duration(told.left[1])} left")
    with stop_on_signals(folder) as request:
        (folder / "stop").unlink(missing_ok=True)
        _prepare(campaign, console)
        hours = config.limit.hours
        halt = Halt(partial(_asked, request), None if hours is None else time.monotonic() + 3600 * hours)
        with _pool(campaign) as pool:
            request.begin()
            driver = Driver(
                campaign.jobs, campaign.ledger, pool, config.limit.flops, config.launch.retries, halt, console.line
            )
            try:
                why = driver.run()
            except KeyboardInterrupt:
                console.line("stop", "stopped at once; the same command goes on from the newest checkpoints")
                return INTERRUPTED
            finally:
                request.end()
    return _close(campaign, driver, why, console)


def _asked(request: StopRequest) -> bool:
    if request.count > 1:
        raise KeyboardInterrupt
    return request.count > 0


def _close(campaign: Campaign, driver: Driver, why: str, console: Console) -> int:
    entries = campaign.entries()
    done = sum(entry.state == DONE for entry in entries.values())
    spent, wasted = totals(entries.values())
    lost = f" · {wasted:.3g} lost" if wasted else ""
    console.line("spent", f"{done} of {len(entries)} jobs done · {spent:.4g} FLOP{lost}")
    if why:
        remedy = "give the same command again" if driver.stopping else "raise the limit"
        console.line("stop", f"{why}; {remedy} to go on")
    if driver.stopping:
        return INTERRUPTED
    return int(any(entries[job.hash].state in LOST for job in campaign.jobs if job.hash in entries))


def _refuse_groups(campaign: Campaign) -> None:
    for cell in campaign.grid.cells:
        workers = cell.run.launch.workers
        if workers > 1 and campaign.config.launch.backend == "local":
            raise ConfigError(
                f"{cell.name}: launch.workers={workers}, but launch.backend=local has one process",
                "launch.workers=1 for each family, or launch.backend=ray",
                "set it in families.NAME.set, or leave out launch.backend=local",
            )


def _prepare(campaign: Campaign, console: Console) -> None:
    """Open each family's data once, before workers need it; how many tokens there are is kept for the report."""
    from launch.modality import modality

    seen: dict[str, int | None] = {}
    tokens: dict[str, int] = {}
    for cell in campaign.grid.cells:
        key = cell.run.data.model_dump_json()
        if key not in seen:
            kind = modality(cell.run)
            data = kind.open_data(cell.run, bar_progress(console, "data", "B"))
            kind.check(cell.run, data)
            seen[key] = unique_tokens(data.train)
        if (count := seen[key]) is not None:
            tokens[cell.family] = count
    console.end_progress()
    write_json(campaign.folder / DATA_FILE, {"tokens": tokens})
    for family, text in passes(campaign).items():
        console.line("data", f"{family}: {text}")


@contextlib.contextmanager
def _pool(campaign: Campaign) -> Iterator[Pool]:
    config, folder = campaign.config, campaign.folder
    if config.launch.backend == "local":
        yield LocalPool(folder)
        return
    from launch import ray_cluster
    from launch.ray_map import chatter_to

    most = max((cell.run.launch for cell in campaign.grid.cells), key=lambda asked: asked.workers)
    launch = LaunchConfig(
        address=config.launch.address,
        workers=most.workers,
        cpus_per_worker=most.cpus_per_worker,
        gpus_per_worker=most.gpus_per_worker,
    )
    ray_cluster.precheck(launch)
    temporary = ray_cluster.temporary_folder()
    (folder / "logs").mkdir(exist_ok=True)
    with contextlib.ExitStack() as quiet:
        quiet.enter_context(ray_cluster.ray_environment(launch))
        quiet.enter_context(chatter_to(folder / "logs" / "ray.log"))
        try:
            ray_cluster.connect(launch, temporary)
            pool = RayPool(folder, config.launch.slots)
            try:
                yield pool
            finally:
                pool.close()
        finally:
            import ray

            ray.shutdown()
            ray_cluster.remove_temporary(temporary)
