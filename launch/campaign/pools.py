"""Where jobs run: in this process, or in Ray workers that are kept from job to job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from launch.campaign.jobs import Job
from launch.campaign.work import Ended, work
from launch.placement import resources_per_worker

Finished = tuple[Job, "Ended | Exception"]
"""A job, and how it ended: an exception where its worker died."""


class Pool(Protocol):
    """What runs jobs side by side."""

    alone: bool
    """Whether jobs run in this process, one after the other."""

    def start(self, job: Job, start: int) -> bool:
        """Begin a job; False where there is no room for it now."""

    def finished(self, seconds: float) -> Sequence[Finished]:
        """Jobs that have ended; waits up to so many seconds for one."""

    def close(self) -> None:
        """End all workers."""


class LocalPool:
    """This process: a job begins and ends in `finished`."""

    alone = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._next: tuple[Job, int] | None = None

    def start(self, job: Job, start: int) -> bool:
        """Room for one."""
        if self._next is not None:
            return False
        self._next = (job, start)
        return True

    def finished(self, seconds: float) -> Sequence[Finished]:
        """Run the job."""
        if self._next is None:
            time.sleep(seconds)
            return []
        job, start = self._next
        self._next = None
        return [(job, work(job, self._root, start))]

    def close(self) -> None:
        """Nothing is left."""


class Worker:
    """A Ray actor that runs one job after the other: torch is imported, and the cores are taken, once."""

    def __init__(self, root: str, directory: str, address: str) -> None:
        import os

        if os.path.isdir(directory):
            os.chdir(directory)
        self._root, self._address = Path(root), address

    def run(self, job: Job, start: int) -> Ended:
        """See `work`; what is printed goes to the job's own log."""
        from launch.ray_worker import output_to

        folder = self._root / job.folder
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        output_to(folder / "logs" / ("worker_0.log" if job.run.launch.workers == 1 else "command.log"))
        return work(job, self._root, start, self._address)


@dataclass
class _Seat:
    """A worker, or the leader of a group, which takes nothing for itself; `needs` are those of all of them."""

    actor: Any
    needs: dict[str, float]
    leads: bool
    job: Job | None = None
    call: Any = None


class RayPool:
    """Ray workers, as many as there is room for; one that is idle takes any job with the same needs.

    A job of several workers has a leader, which trains them as `generative train` does.

    Args:
        root: folder of the campaign.
        slots: most jobs at once.
    """

    alone = False

    def __init__(self, root: Path, slots: int | None) -> None:
        self._root, self._slots = root, slots
        self._seats: list[_Seat] = []

    def start(self, job: Job, start: int) -> bool:
        """Give the job to an idle worker of its size, or to a new one where there is room."""
        busy = [seat for seat in self._seats if seat.job is not None]
        if self._slots is not None and len(busy) >= self._slots:
            return False
        workers = job.run.launch.workers
        needs = {kind: workers * amount for kind, amount in resources_per_worker(job.run.launch).items()}
        idle = [seat for seat in self._seats if seat.job is None]
        seat = next((seat for seat in idle if (seat.needs, seat.leads) == (needs, workers > 1)), None)
        if seat is None:
            while idle and not self._fits(needs):
                self._end(idle.pop())
            if not self._fits(needs):
                return False
            seat = self._open(needs, workers > 1)
        seat.job = job
        seat.call = seat.actor.run.remote(job, start)
        return True

    def finished(self, seconds: float) -> Sequence[Finished]:
        """Results of workers; one that died is gone, and its job comes with the error."""
        import ray

        busy = [seat for seat in self._seats if seat.job is not None]
        if not busy:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait([seat.call for seat in busy], timeout=seconds)
        found: list[Finished] = []
        for seat in busy:
            if seat.call not in ready:
                continue
            assert seat.job is not None
            job, seat.job = seat.job, None
            try:
                found.append((job, ray.get(seat.call)))
            except Exception as error:
                self._end(seat)
                found.append((job, error))
        return found

    def close(self) -> None:
        """End all workers."""
        for seat in list(self._seats):
            self._end(seat)

    def _fits(self, needs: dict[str, float]) -> bool:
        """Whether the cluster has so much beside what the workers here hold."""
        from launch import ray_cluster

        total: dict[str, float] = {}
        for node in ray_cluster.nodes().values():
            for kind, amount in node.items():
                total[kind] = total.get(kind, 0.0) + amount
        held = {kind: sum(seat.needs.get(kind, 0.0) for seat in self._seats) for kind in needs}
        return all(held[kind] + amount <= total.get(kind, 0.0) + 1e-6 for kind, amount in needs.items())

    def _open(self, needs: dict[str, float], leads: bool) -> _Seat:
        import os

        import ray

        from launch import ray_cluster

        own = {} if leads else needs
        options = {"num_cpus": own.get("CPU", 0), "num_gpus": own.get("GPU", 0), "memory": own.get("memory")}
        options = {key: value for key, value in options.items() if value is not None}
        worker = ray.remote(Worker).options(max_restarts=0, **options)
        seat = _Seat(worker.remote(str(self._root), os.getcwd(), ray_cluster.address()), needs, leads)
        self._seats.append(seat)
        return seat

    def _end(self, seat: _Seat) -> None:
        import ray

        ray.kill(seat.actor, no_restart=True)
        self._seats.remove(seat)
