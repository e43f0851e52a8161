"""The driver with a pool that only pretends: order, limits, retries, two drivers."""

from __future__ import annotations

import threading
import time

import pytest

from generative.errors import RunFolderError
from launch.campaign.driver import Driver, Halt
from launch.campaign.ledger import CANCELLED, DIVERGED, DONE, FAILED, PLANNED, Ledger, totals
from launch.campaign.opened import open_campaign
from launch.campaign.work import Ended


class Pretended:
    """Ends jobs as it is told, `slots` at once."""

    alone = False

    def __init__(self, slots=2, ends=None):
        self.slots, self.ends, self.running, self.begun = slots, ends or {}, [], []

    def start(self, job, start):
        if len(self.running) >= self.slots:
            return False
        self.begun.append(job.name)
        self.running.append(job)
        return True

    def finished(self, seconds):
        jobs, self.running = self.running, []
        return [(job, self._end(job)) for job in jobs]

    def _end(self, job):
        how = self.ends.get(job.name, [])
        if how:
            return how.pop(0)
        found = {"loss": 2.0, "loss_name": "nll"} if job.cell else None
        return Ended(DONE, result=found, spent=job.flops)


def driven(campaign, pool, limit=None, retries=2, halt=None, ledger=None):
    told = []
    driver = Driver(
        campaign.jobs,
        ledger or campaign.ledger,
        pool,
        limit,
        retries,
        halt or Halt(),
        lambda *words: told.append(words),
    )
    return driver, driver.run(), told


@pytest.fixture
def campaign(campaign_file):
    one = open_campaign(campaign_file())
    one.ledger.plan(one.jobs)
    return one


def states(campaign):
    return {entry.name: entry.state for entry in campaign.entries().values()}


def test_largest_first_and_again_nothing(campaign):
    pool = Pretended()
    assert driven(campaign, pool)[1] == ""
    flops = {job.name: job.flops for job in campaign.jobs}
    assert pool.begun == sorted(pool.begun, key=lambda name: -flops[name])
    assert set(states(campaign).values()) == {DONE}
    again = Pretended()
    driven(campaign, again)
    assert again.begun == []


def test_never_beyond_the_limit(campaign):
    cost = sorted(job.flops for job in campaign.jobs)
    limit = cost[-1] + cost[0] * 1.01
    pool = Pretended()
    why = driven(campaign, pool, limit=limit)[1]
    assert "limit.flops" in why
    assert sum(totals(campaign.entries().values())) <= limit * (1 + 1e-9)
    assert 1 <= len(pool.begun) < 4


def test_lost_work_counts_against_the_limit(campaign):
    name = max(campaign.jobs, key=lambda job: job.flops).name
    whole = sum(job.flops for job in campaign.jobs)
    ends = {name: [Ended(FAILED, "died", wasted=whole, again=True)]}
    driven(campaign, Pretended(slots=1, ends=ends), limit=whole)
    assert DONE not in states(campaign).values()


def test_retries_with_cause_then_given_up(campaign):
    name = campaign.jobs[0].name
    pool = Pretended(ends={name: [RuntimeError("node lost"), RuntimeError("node lost")]})
    _, _, told = driven(campaign, pool)
    assert pool.begun.count(name) == 3
    assert sum(label == "retry" and "node lost" in text for label, text in told) == 2
    assert states(campaign)[name] == DONE


def test_failures_that_cannot_be_helped_are_tried_once(campaign):
    one, two = campaign.jobs[0].name, campaign.jobs[1].name
    pool = Pretended(ends={one: [Ended(FAILED, "bad data")], two: [Ended(DIVERGED, "nan")]})
    _, why, _ = driven(campaign, pool)
    assert (why, pool.begun.count(one), pool.begun.count(two)) == ("", 1, 1)
    assert states(campaign)[one] == FAILED
    assert states(campaign)[two] == DIVERGED
    later = Pretended()
    driven(campaign, later)
    assert later.begun == [one]


def test_branches_wait_for_their_trunk(campaign_file):
    one = open_campaign(campaign_file(wsd={"decay": 0.25}))
    one.ledger.plan(one.jobs)
    pool = Pretended(slots=100)
    driven(one, pool)
    place = {name: number for number, name in enumerate(pool.begun)}
    names = {job.hash: job.name for job in one.jobs}
    assert all(place[names[job.after]] < place[job.name] for job in one.jobs if job.after)
    assert set(states(one).values()) == {DONE}


def test_what_waits_for_a_diverged_trunk_is_cancelled(campaign_file):
    one = open_campaign(campaign_file(wsd={"decay": 0.25}))
    one.ledger.plan(one.jobs)
    first = next(job for job in one.jobs if job.cell is None and job.after is None)
    driven(one, Pretended(ends={first.name: [Ended(DIVERGED, "nan")]}))
    found = states(one)
    assert found.pop(first.name) == DIVERGED
    size = next(job.cell.size for job in one.jobs if job.after == first.hash and job.cell)
    assert all((state == CANCELLED) == (f"-{size}-" in name) for name, state in found.items())


def test_a_limit_that_stops_a_trunk_ends_the_run(campaign_file):
    one = open_campaign(campaign_file(wsd={"decay": 0.25}))
    one.ledger.plan(one.jobs)
    assert "limit.flops" in driven(one, Pretended(), limit=1.0)[1]


def test_stop_saves_and_begins_nothing(campaign):
    asked = []

    class Saving(Pretended):
        def _end(self, job):
            asked.append(1)
            return Ended(PLANNED) if (campaign.folder / job.folder / "stop").exists() else super()._end(job)

    halt = Halt(lambda: bool(halt_now))
    halt_now = []

    class Starting(Saving):
        def start(self, job, start):
            (campaign.folder / job.folder).mkdir(parents=True, exist_ok=True)
            halt_now.append(1)
            return super().start(job, start)

        def finished(self, seconds):
            if not (campaign.folder / self.running[0].folder / "stop").exists():
                return []
            return super().finished(seconds)

    pool = Starting()
    _, why, _ = driven(campaign, pool, halt=halt)
    assert why == "stopped"
    assert len(pool.begun) == 2
    assert set(states(campaign).values()) == {PLANNED}


def test_two_drivers_do_each_job_once(campaign):
    other = Ledger(campaign.folder)
    held = campaign.jobs[0]
    assert other.claim(held)

    class Releasing(Pretended):
        def finished(self, seconds):
            if not self.running and held.hash in other._held:
                other.write(DONE, held, spent=held.flops, result={"loss": 2.0})
                other.release(held, DONE)
            return super().finished(seconds)

    pool = Releasing()
    driven(campaign, pool)
    assert held.name not in pool.begun
    assert len(pool.begun) == 3
    assert set(states(campaign).values()) == {DONE}


class Slow(Pretended):
    """Runs one job in the driver's own thread, and looks at its state file meanwhile."""

    alone = True

    def __init__(self, ledger):
        super().__init__(slots=1)
        self.ledger, self.beats = ledger, []

    def finished(self, seconds):
        for job in self.running:
            first = self.ledger.state_of(job.hash)["heartbeat"]
            deadline = time.monotonic() + 10
            while self.ledger.state_of(job.hash)["heartbeat"] == first and time.monotonic() < deadline:
                time.sleep(0.01)
            self.beats.append(self.ledger.state_of(job.hash)["heartbeat"] > first)
        return super().finished(seconds)


def test_signs_of_life_go_on_after_one_that_could_not_be_written(campaign, monkeypatch):
    monkeypatch.setattr("launch.campaign.driver.BEAT_SECONDS", 0.02)
    beat, refused = campaign.ledger.beat, []

    def full(job, state="running"):
        if threading.current_thread().name == "heartbeat" and not refused:
            refused.append(job)
            raise RunFolderError("cannot write it: no space left", "room on the disk", "free some")
        beat(job, state)

    monkeypatch.setattr(campaign.ledger, "beat", full)
    pool = Slow(campaign.ledger)
    driven(campaign, pool)
    assert refused
    assert pool.beats == [True] * len(campaign.jobs)


def test_signs_of_life_while_a_job_runs_in_this_process(campaign, monkeypatch):
    monkeypatch.setattr("launch.campaign.driver.BEAT_SECONDS", 0.02)
    pool = Slow(campaign.ledger)
    driven(campaign, pool)
    assert pool.beats == [True] * len(campaign.jobs)
    time.sleep(0.1)
    assert {campaign.ledger.state_of(job.hash)["state"] for job in campaign.jobs} == {DONE}
