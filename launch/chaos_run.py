"""The stormy run: the command is given, faults are done to it, and given again where it ends, as a user would."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.errors import GenerativeError
from generative.training.checkpoint.rotation import complete_steps
from launch.chaos_faults import ENDING, FAULTS, Fault, Target
from launch.practice_cluster import PracticeCluster
from launch.tail import Tail

POLL_SECONDS = 0.02
RECOVERY_SECONDS = 300.0
"""How long a run may need, besides its own time-outs, to train again after a fault."""


class NotRecoveredError(GenerativeError):
    """The run did not come back after a fault, or ended without one."""

    exit_code = 1


@dataclass(frozen=True)
class Damage:
    """What one fault has cost.

    Args:
        kind: of fault.
        step: at which it happened.
        lost_steps: steps taken before that had to be taken again.
        lost_seconds: training time of those steps.
        detected_seconds: from the fault until somebody noticed.
        restarted_seconds: from then until training went on.
    """

    kind: str
    step: int
    lost_steps: int
    lost_seconds: float
    detected_seconds: float
    restarted_seconds: float


class News:
    """What a run folder tells: steps with their seconds, restarts and resumes with their times."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._metrics, self._events = Tail(folder / "metrics.jsonl"), Tail(folder / "events.jsonl")
        self.seconds: dict[int, float] = {}
        """Training time of each step, as last taken."""
        self.step = 0
        self.events: list[dict[str, Any]] = []

    def read(self) -> None:
        """Take in what is new."""
        for line in self._metrics.read():
            if line.get("kind") == "train":
                self.step = int(line["step"])
                self.seconds[self.step] = float(line["seconds"])
        self.events += self._events.read()

    def restarted(self, moment: float) -> float:
        """When the first restart after a moment was decided."""
        return next((float(e["time"]) for e in self.events if e["time"] > moment and e["kind"] == "restart"), moment)

    def resumed(self, moment: float) -> dict[str, Any] | None:
        """The first event after a moment that says that workers train."""
        later = (event for event in self.events if event["time"] > moment)
        return next((e for e in later if e["kind"] == "resume" or e["message"].endswith("worker(s)")), None)


class Storm:
    """One run and the faults that it has to survive.

    Args:
        command: gives the run's command for the address of its cluster.
        folder: its run folder, empty or not there.
        faults: what is to happen, by step.
        seed: of the choice of victims.
        cluster: the practice cluster that it runs on, if it is one.
        elastic: whether the run may go on with fewer workers.
        patience: the run's own time-outs, in seconds.
        say: told of each fault and what became of it.
    """

    def __init__(
        self,
        command: Callable[[str | None], list[str]],
        folder: Path,
        faults: Sequence[Fault],
        seed: int,
        cluster: PracticeCluster | None,
        elastic: bool,
        patience: float,
        say: Callable[[str], None],
    ) -> None:
        self._command, self._folder, self._faults, self._say = command, folder, list(faults), say
        self._patience = patience + RECOVERY_SECONDS
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._news = News(folder)
        self._log = folder.parent / f"{folder.name}.log"
        self._target = Target(folder, self._start(cluster), random.Random(seed), cluster, elastic)
        self._before: dict[int, float] = {}
        self.damages: list[Damage] = []
        """What each fault so far has cost."""

    def run(self) -> None:
        """To the end of the run.

        Raises:
            NotRecoveredError: a fault was not survived.
        """
        try:
            for fault in self._faults:
                self._until(lambda fault=fault: self._ready(fault), f"step {fault.step}")  # type: ignore[misc]
                self.damages.append(self._strike(fault))
            self._until(lambda: self._target.driver.poll() is not None, "its end")
            if self._target.driver.returncode:
                raise self._lost(f"it ended with exit code {self._target.driver.returncode}")
        finally:
            self._target.driver.kill()
            self._target.driver.wait()

    def _start(self, cluster: PracticeCluster | None) -> subprocess.Popen[bytes]:
        words = self._command(cluster.address if cluster else None)
        return start(words, self._log, cluster)

    def _ready(self, fault: Fault) -> bool:
        """Whether its step has come; a checkpoint is damaged only where there is an earlier one."""
        enough = fault.kind != "corrupt" or len(complete_steps(self._folder / "checkpoints")) > 1
        return self._news.step >= fault.step and enough

    def _strike(self, fault: Fault) -> Damage:
        moment, step = time.time(), self._news.step
        self._say(f"step {step}: {FAULTS[fault.kind][1]}")
        FAULTS[fault.kind][0](self._target)
        detected = self._again(fault) if fault.kind in ENDING else None
        self._until(lambda: self._trains_since(moment), f"recovery from {fault.kind}@{fault.step}", again=False)
        noticed = detected or self._news.restarted(moment)
        resumed = self._news.resumed(moment)
        assert resumed is not None
        repeated = [seconds for at, seconds in self._before.items() if at > int(resumed["step"])]
        damage = Damage(
            fault.kind, step, len(repeated), sum(repeated), noticed - moment, float(resumed["time"]) - noticed
        )
        self._say(
            f"lost {damage.lost_steps} steps ({damage.lost_seconds:.1f} s), noticed after "
            f"{damage.detected_seconds:.1f} s, training again {damage.restarted_seconds:.1f} s later"
        )
        return damage

    def _again(self, fault: Fault) -> float:
        """Wait for the end of the command, give it again (where its cluster is gone: with a new one); when it ended."""
        driver = self._target.driver
        try:
            driver.wait(timeout=self._patience)
        except subprocess.TimeoutExpired:
            raise self._lost("the command did not end") from None
        ended = time.time()
        if fault.kind == "cluster" and self._target.cluster is not None:
            self._target.cluster.restart()
        self._target.driver = self._start(self._target.cluster)
        return ended

    def _trains_since(self, moment: float) -> bool:
        """Whether a step was taken by workers that were started after a moment; before that, remembers the steps."""
        resumed = self._news.resumed(moment)
        if resumed is None:
            self._before = dict(self._news.seconds)
            return False
        return self._news.step > int(resumed["step"]) and self._news.seconds != self._before

    def _until(self, happened: Callable[[], bool], what: str, again: bool = True) -> None:
        """Wait; `again` is False where the time is limited by the patience with one recovery."""
        deadline = time.monotonic() + self._patience
        step = self._news.step
        while True:
            self._news.read()
            if happened():
                return
            if self._target.driver.poll() is not None:
                raise self._lost(f"it ended with exit code {self._target.driver.returncode} before {what}")
            if again and self._news.step != step:
                step, deadline = self._news.step, time.monotonic() + self._patience
            if time.monotonic() > deadline:
                raise self._lost(f"waited {self._patience:.0f} s in vain for {what}")
            time.sleep(POLL_SECONDS)

    def _lost(self, why: str) -> NotRecoveredError:
        tail = self._log.read_text(errors="replace").strip().splitlines()[-4:] if self._log.exists() else []
        return NotRecoveredError(
            f"the run in {self._folder} did not recover: {why}" + "".join(f"\n    {line}" for line in tail),
            "a run that survives every fault",
            f"look at {self._log} and {self._folder}/logs",
        )


def start(words: Sequence[str], log: Path, cluster: PracticeCluster | None) -> subprocess.Popen[bytes]:
    """The command line as a process of its own, whose output goes to the end of a file."""
    environment = os.environ | (cluster.environment if cluster else {})
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "launch.cli", *words],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
