"""One group of workers after another, until the run is through: what is counted, told and tried again."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generative.errors import GenerativeError
from launch import failures, ray_cluster
from launch.cluster_watch import ClusterWatch
from launch.folder import clear_requests, outcome_state, read_json, record_event
from launch.nodes import check_nodes, compared

if TYPE_CHECKING:
    from launch.schema import RunConfig


class WorkersError(GenerativeError):
    """The workers failed more often than launch.max_restarts allows."""

    exit_code = 1


class Groups:
    """The groups of workers of one start of a run.

    Each group takes the nodes that there are at its start: as many workers as launch.workers where they fit, and no
    fewer than launch.min_workers. So a run that has lost a node goes on with the others, and grows again at its next
    restart.

    Args:
        config: of the run.
        folder: the run folder.
        work: what each worker does, pickled.
        watch: knows whether a node is being taken away, and whether the user wants to stop.
    """

    def __init__(self, config: RunConfig, folder: Path, work: bytes, watch: ClusterWatch) -> None:
        self._config, self._folder, self._work, self._watch = config, folder, work, watch
        self._counted = 0
        self._checked: set[str] = set()

    def train(self) -> None:
        """Until a group has ended by itself; how is in outcome.json.

        Raises:
            ResourceError: no room for (enough) workers, or a node that cannot take part.
            RunFolderError: a node does not see the run folder.
            WorkersError: the workers failed too often.
            GenerativeError: a worker met a mistake that another start would meet again.
        """
        for attempt in itertools.count(1):
            nodes = ray_cluster.find_seats(self._config.launch, partial(record_event, self._folder, "warning"))
            self._check(set(nodes))
            if not self._once(nodes, attempt):
                return

    def _check(self, nodes: set[str]) -> None:
        """Look at nodes that are new to this run."""
        if self._config.launch.address is not None and nodes - self._checked:
            packages = compared(self._config.parallel.strategy)
            check_nodes(self._folder, ray_cluster.where(self._config.launch), nodes - self._checked, packages)
            self._checked |= nodes

    def _once(self, nodes: list[str], attempt: int) -> bool:
        """One group; whether another must follow."""
        from launch import ray_group

        self._tell_size(len(nodes))
        before = self._step()
        self._watch.nodes = set(nodes)
        try:
            ray_group.fit(self._config, self._folder, self._work, nodes, attempt)
        except Exception as error:
            if outcome_state(self._folder) == "failed":
                return False
            self._restart_after(error)
        else:
            if not self._told_to_leave():
                return False
            self._restart_elsewhere(self._step() > before)
        return True

    def _tell_size(self, found: int) -> None:
        asked, least = self._config.launch.workers, self._config.launch.min_workers
        if found < asked:
            text = f"there is room for {found} of {asked} workers: going on with {found} (launch.min_workers={least})"
            record_event(self._folder, "warning", text)

    def _step(self) -> int:
        return int(read_json(self._folder / "status.json").get("step") or 0)

    def _restart_after(self, error: Exception) -> None:
        """Count a failure and tell about it; raises where it was the last one."""
        limit, found = self._config.launch.max_restarts, failures.of_workers(error)
        failures.record(self._folder, found or {-1: error})
        if (mistake := failures.users_mistake(found)) is not None:
            raise mistake from error
        rank, cause = failures.first_cause(found) if found else (None, error)
        text = f"{'a worker' if rank is None else f'worker {rank}'} {failures.describe(cause)}"
        self._counted += 1
        if self._counted <= limit:
            record_event(self._folder, "restart", f"{self._counted} of {limit}: {text}; all start again")
            return
        problem = f"the workers failed {self._counted} time(s); the last time {text}"
        record_event(self._folder, "stop", problem)
        raise WorkersError(
            problem,
            f"workers that live, or at most launch.max_restarts={limit} restarts",
            f"look at {self._config.folder}/logs/worker_errors.log, mend the cause, and give the same command again",
        ) from error

    def _told_to_leave(self) -> bool:
        """Whether the workers saved and left because a node or a process of theirs is being taken away."""
        if outcome_state(self._folder) != "interrupted" or self._watch.stop_asked():
            return False
        return bool(self._watch.leaving) or not (self._folder / "stop").exists()

    def _restart_elsewhere(self, progress: bool) -> None:
        """After a warning nothing is lost, so it counts only where it comes again before a step was taken."""
        self._counted += not progress
        why = "a node is being taken away" if self._watch.leaving else "a worker was told to leave (SIGTERM)"
        if self._counted > self._config.launch.max_restarts:
            raise WorkersError(
                f"the workers were told to leave {self._counted} time(s) before they could take a step: {why}",
                "nodes that stay for some steps",
                "look at who ends the workers, and give the same command again",
            )
        clear_requests(self._folder)
        self._watch.leaving = set()
        record_event(self._folder, "restart", f"{why}: saved at step {self._step()}; all start again")
