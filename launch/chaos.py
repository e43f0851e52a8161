"""`generative chaos`: the same configuration twice, once undisturbed and once with faults; both must give the same."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.errors import ConfigError, GenerativeError
from generative.training.runfolder import atomic_write, read_lines
from launch.chaos_compare import Comparison, compare
from launch.chaos_faults import Fault, needs_nodes
from launch.chaos_run import Damage, NotRecoveredError, Storm, start
from launch.folder import check_same_run, outcome_state
from launch.practice_cluster import PracticeCluster
from launch.ray_worker import WORKERS

if TYPE_CHECKING:
    from launch.schema import RunConfig

SHORT_TIMEOUT = 15
"""parallel.timeout_seconds of both runs unless the configuration asks for less: how long a frozen worker is missed."""

HEADER = ("fault", "step", "lost steps", "lost time", "noticed after", "restarted in")


@dataclass(frozen=True)
class Verdict:
    """What came out.

    Args:
        faults: that were to be done.
        damages: of those that were survived.
        comparison: of both runs; None where the stormy one did not come to its end.
        problem: why not.
        seconds: of the calm run, and of the stormy one.
        workers: of each group of the stormy run.
    """

    faults: Sequence[Fault]
    damages: Sequence[Damage]
    comparison: Comparison | None
    problem: str
    seconds: tuple[float, float]
    workers: Sequence[int]

    @property
    def equal(self) -> bool:
        """Whether all faults were survived and both runs are the same."""
        return self.comparison is not None and self.comparison.equal

    def json(self) -> dict[str, Any]:
        """For chaos.json."""
        return dataclasses.asdict(self) | {"equal": self.equal}

    def table(self) -> str:
        """One line a fault, then the comparison."""
        rows = [HEADER, *(_row(damage) for damage in self.damages)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
        lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        end = self.problem or (self.comparison.sentence() if self.comparison else "")
        return "\n".join([*lines, "", f"{len(self.damages)} of {len(self.faults)} faults survived", f"curves {end}"])


def _row(damage: Damage) -> tuple[str, ...]:
    return (
        damage.kind,
        str(damage.step),
        str(damage.lost_steps),
        f"{damage.lost_seconds:.1f} s",
        f"{damage.detected_seconds:.1f} s",
        f"{damage.restarted_seconds:.1f} s",
    )


def chaos(
    name: str, overrides: Sequence[str], faults: Sequence[Fault], seed: int, say: Callable[[str, str], None]
) -> Verdict:
    """Run a configuration twice, in <run.dir>/chaos/calm and .../stormy, and write <run.dir>/chaos/chaos.json.

    Args:
        name: configuration.
        overrides: `a.b=c`.
        faults: what happens to the second run, by step.
        seed: of the choice of victims.
        say: told (label, text) of what goes on.

    Raises:
        ConfigError: chaos makes no sense for this configuration.
        GenerativeError: the undisturbed run does not come to its end.
    """
    from launch.schema import load_run_config

    config = load_run_config(name, overrides)
    _check(config, faults)
    folder = Path(config.folder).absolute() / "chaos"
    extra = [f"parallel.timeout_seconds={min(config.parallel.timeout_seconds, SHORT_TIMEOUT)}"]
    extra.append(f"launch.max_restarts={config.launch.max_restarts + len(faults)}")

    def command(run: str, address: str | None) -> list[str]:
        where = [] if address is None else [f"launch.address={address}"]
        return ["train", name, *overrides, *extra, *where, f"run.dir={folder / run}"]

    with _cluster(config, faults, say) as cluster:
        calm = _calm(config, folder, lambda address: command("calm", address), cluster, say)
        began = time.monotonic()
        shutil.rmtree(folder / "stormy", ignore_errors=True)
        (folder / "stormy.log").unlink(missing_ok=True)
        elastic = config.launch.min_workers is not None
        storm = Storm(
            lambda address: command("stormy", address),
            folder / "stormy",
            faults,
            seed,
            cluster,
            elastic,
            float(min(config.parallel.timeout_seconds, SHORT_TIMEOUT)),
            lambda text: say("storm", text),
        )
        problem = ""
        try:
            storm.run()
        except NotRecoveredError as error:
            problem = error.problem
        verdict = _verdict(folder, faults, storm.damages, problem, (calm, time.monotonic() - began))
    atomic_write(folder / "chaos.json", json.dumps(verdict.json(), indent=1))
    return verdict


def _check(config: RunConfig, faults: Sequence[Fault]) -> None:
    if config.launch.backend != "ray" or (config.launch.address is not None):
        given = "launch.backend=local" if config.launch.backend != "ray" else f"launch.address={config.launch.address}"
        raise ConfigError(
            f"chaos with {given}: faults are practised on this machine, under Ray",
            "launch.backend=ray and no launch.address (chaos makes a cluster of several nodes where it needs one)",
            "leave these settings out",
        )
    if config.train.steps is not None and faults and faults[-1].step >= config.train.steps:
        raise ConfigError(
            f"--kill {faults[-1].kind}@{faults[-1].step}: the run has {config.train.steps} steps",
            "steps within the run",
            "lower the step, or raise train.steps",
        )


@contextlib.contextmanager
def _cluster(
    config: RunConfig, faults: Sequence[Fault], say: Callable[[str, str], None]
) -> Iterator[PracticeCluster | None]:
    """A cluster with a node for each worker, where the faults need one."""
    if not needs_nodes(faults):
        yield None
        return
    say("cluster", f"starting a practice cluster of {config.launch.workers} nodes on this machine")
    with PracticeCluster(config.launch.workers, config.launch.cpus_per_worker) as cluster:
        yield cluster


def _calm(
    config: RunConfig,
    folder: Path,
    command: Callable[[str | None], list[str]],
    cluster: PracticeCluster | None,
    say: Callable[[str, str], None],
) -> float:
    """The undisturbed run, unless it is there already; its seconds."""
    run, began = folder / "calm", time.monotonic()
    if not _is_there(config, run):
        shutil.rmtree(run, ignore_errors=True)
    else:
        say("calm", f"is there already: {run}")
        return 0.0
    say("calm", f"training without faults in {run}")
    log = folder / "calm.log"
    log.unlink(missing_ok=True)
    process = start(command(cluster.address if cluster else None), log, cluster)
    try:
        code = process.wait()
    finally:
        _end(process)
    if code:
        raise GenerativeError(
            "\n    ".join([f"the undisturbed run ended with exit code {code}", *log.read_text().splitlines()[-4:]]),
            "a configuration that trains to its end",
            f"look at {log}",
        )
    return time.monotonic() - began


def _is_there(config: RunConfig, run: Path) -> bool:
    try:
        check_same_run(run, str(run), config)
    except GenerativeError:
        return False
    return outcome_state(run) == "complete"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _verdict(
    folder: Path, faults: Sequence[Fault], damages: Sequence[Damage], problem: str, seconds: tuple[float, float]
) -> Verdict:
    groups: dict[tuple[str, int], int] = {}
    for line in read_lines(folder / "stormy" / WORKERS):
        key = (line["driver"], line["attempt"])
        groups[key] = groups.get(key, 0) + 1
    workers = list(groups.values())
    comparison = compare(folder / "calm", folder / "stormy", len(set(workers)) == 1) if not problem else None
    return Verdict(faults, damages, comparison, problem, seconds, workers)
