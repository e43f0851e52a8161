"""Which job is begun when: largest first, what it waits for done, within the limit, and each by one driver alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from generative.errors import RunFolderError
from launch.campaign.jobs import Job
from launch.campaign.ledger import CANCELLED, DIVERGED, DONE, ENDED, FAILED, PLANNED, RUNNING, Entry, Ledger, totals
from launch.campaign.pools import Finished, Pool
from launch.campaign.work import Ended

POLL_SECONDS = 0.5
BEAT_SECONDS = 5.0

Tell = Callable[[str, str], None]


@dataclass
class Halt:
    """Why nothing more is begun: a signal (a second one raises KeyboardInterrupt), or the end of the time."""

    stop: Callable[[], bool] = lambda: False
    deadline: float | None = None

    def asked(self) -> str:
        """The reason, or ''."""
        if self.stop():
            return "stopped"
        if self.deadline is not None and time.monotonic() > self.deadline:
            return "limit.hours is over"
        return ""


@dataclass
class Driver:
    """One `campaign run`.

    Args:
        jobs: all of the campaign.
        ledger: of its folder.
        pool: where jobs run.
        limit: FLOPs that may be spent and wasted in all.
        retries: of a job whose worker died.
        halt: asked whether to go on.
        tell: prints (label, text).
    """

    jobs: Sequence[Job]
    ledger: Ledger
    pool: Pool
    limit: float | None
    retries: int
    halt: Halt
    tell: Tell
    running: dict[str, Job] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    stopping: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held where `running` changes with the state file of a job, so that no sign of life follows its end."""

    def run(self) -> str:
        """Until nothing can be begun any more; returns why it ended ("" where all is done or given up)."""
        with self._beating():
            return self._run()

    def _run(self) -> str:
        known = self._known()
        while True:
            why = self.halt.asked()
            if why and not self.stopping:
                self._stop(why)
            refused = self._begin(known) if not self.stopping else ""
            if not self.running and (self.stopping or not self._waiting(known)):
                return self.stopping or refused
            for one in self.pool.finished(POLL_SECONDS):
                self._book(one)
            if self.stopping:
                self._ask_to_leave()
            known = self._known()

    def _known(self) -> dict[str, Entry]:
        entries = self.ledger.entries()
        return {job.hash: entries.get(job.hash, Entry(job.name)) for job in self.jobs}

    def _open(self, known: dict[str, Entry]) -> list[Job]:
        """Jobs that are neither done, running here, nor given up."""
        gone = self.running.keys() | self.given_up.keys()
        return [job for job in self.jobs if known[job.hash].state not in ENDED and job.hash not in gone]

    def _ready(self, known: dict[str, Entry]) -> list[Job]:
        """Of these, those that wait for nothing; the largest first. What waits for a lost trunk is given up."""
        found = []
        for job in self._open(known):
            if job.after is None or known[job.after].state == DONE:
                found.append(job)
            elif job.after in self.given_up or known[job.after].state == DIVERGED:
                self.given_up[job.hash] = f"waits for {known[job.after].name}, which failed"
                self.ledger.write(CANCELLED, job, cause=self.given_up[job.hash])
        return sorted(found, key=lambda job: -job.rank)

    def _waiting(self, known: dict[str, Entry]) -> bool:
        """Whether jobs are left that this driver may yet begin, or another one has."""
        return any(not self._beyond(job, known) for job in self._ready(known))

    def _beyond(self, job: Job, known: dict[str, Entry]) -> bool:
        """Whether the job would take the campaign beyond its limit; what is under way counts as spent."""
        if self.limit is None:
            return False
        spent, wasted = totals(known.values())
        under_way = [one for one in self.jobs if one.hash != job.hash and known[one.hash].state == RUNNING]
        under_way += [one for one in self.running.values() if known[one.hash].state != RUNNING]
        committed = spent + wasted + sum(one.flops for one in under_way)
        return committed + job.flops > self.limit * (1 + 1e-9)

    def _begin(self, known: dict[str, Entry]) -> str:
        """Begin what fits; returns why something was not begun for good."""
        refused = ""
        for job in self._ready(known):
            if self._beyond(job, known):
                refused = f"limit.flops={self.limit:.4g} is reached"
                continue
            if not self.ledger.claim(job):
                continue
            entry = self.ledger.entries().get(job.hash, Entry(job.name))
            if entry.state in ENDED:  # another driver has done it meanwhile
                self.ledger.release(job, entry.state)
                continue
            if not self.pool.start(job, entry.starts + 1):
                self.ledger.release(job, PLANNED)
                break
            self.ledger.write(RUNNING, job)
            self.ledger.beat(job)
            with self._lock:
                self.running[job.hash] = job
            known[job.hash].state = RUNNING
        return refused

    def _book(self, finished: Finished) -> None:
        """Write how a job ended, and give it back."""
        job, how = finished
        told = how if isinstance(how, Ended) else Ended(FAILED, _cause(how), again=True)
        with self._lock:
            del self.running[job.hash]
        fields = {"cause": told.cause, "result": told.result, "seconds": round(told.seconds, 3)}
        self.ledger.write(told.state, job, spent=told.spent, wasted=told.wasted, **fields)
        self.ledger.release(job, told.state)
        tries = self.tries[job.hash] = self.tries.get(job.hash, 0) + 1
        if told.state == DONE:
            self.tell("cell" if job.cell else "trunk", _done_text(job, told))
        elif told.state == PLANNED:
            self.tell("stop", f"{job.name} is saved")
            if not self.stopping and self.pool.alone:  # the signal went to the training in this very process
                self.stopping = "stopped"
            elif not self.stopping and tries > self.retries:
                self.given_up[job.hash] = "its worker is told to leave again and again"
        elif told.state == FAILED and told.again and tries <= self.retries:
            self.tell("retry", f"{job.name}: {told.cause}; try {tries + 1} of {self.retries + 1}")
        else:
            self.given_up[job.hash] = told.cause
            self.tell(told.state, f"{job.name}: {told.cause}")

    def _stop(self, why: str) -> None:
        """Ask all jobs to save and leave."""
        self.stopping = why
        if self.running:
            self.tell("stop", f"{why}: {len(self.running)} running jobs save at their next step")
        self._ask_to_leave()

    def _ask_to_leave(self) -> None:
        """Again and again: a job that is only just beginning clears away what an earlier start was asked."""
        for job in self.running.values():
            if (folder := self.ledger.folder / job.folder).is_dir():
                (folder / "stop").touch()

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Signs of life from a thread: jobs may run in this very process, which then does nothing else."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with self._lock, contextlib.suppress(RunFolderError):  # a full disk is the job's to tell
                    for job in self.running.values():
                        self.ledger.beat(job)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _cause(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"its worker died or raised {type(error).__name__}: {first[:200]}"


def _done_text(job: Job, told: Ended) -> str:
    loss = f" · {told.result['loss_name']} {told.result['loss']:.4f} nats/token" if told.result else ""
    return f"{job.name} · step {job.steps:,} · {told.seconds:.1f} s{loss}"
