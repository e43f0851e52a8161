"""One trainer for one run folder, by the kernel's lock and by the lease that stands in for it."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from generative.errors import RunFolderError
from generative.training import runlock
from generative.training.runlock import RunLock

HOLDER = """
import sys, time, pathlib, errno
from generative.training import runlock
if sys.argv[2] == "lease":
    def unsupported(*_): raise OSError(errno.ENOTSUP, "not supported")
    runlock.fcntl.flock = unsupported
lock = runlock.RunLock(pathlib.Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["flock", "lease"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "lease":

        def unsupported(*_: object) -> None:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

        monkeypatch.setattr(runlock.fcntl, "flock", unsupported)
    return str(request.param)


def test_kill_9_of_the_holder_releases_the_lock_and_the_refusal_says_who_holds_it(tmp_path: Path, kind: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            RunFolderError, match=rf"in use by another trainer: host \S+, pid {holder.pid}, since 20"
        ) as caught:
            RunLock(tmp_path).acquire()
        assert f"kill {holder.pid}" in caught.value.remedy
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    lock = RunLock(tmp_path).acquire()
    assert lock.held
    found = lock.holder()
    assert found is not None
    assert found["pid"] == os.getpid()


def test_release_lets_the_next_one_in(tmp_path: Path, kind: str) -> None:
    for _ in range(3):
        with RunLock(tmp_path).acquire() as lock:
            assert lock.held
            with pytest.raises(RunFolderError):
                RunLock(tmp_path).acquire()
            RunLock(tmp_path, "other").acquire().release()
        assert not lock.held


def test_acquire_waits_as_long_as_it_is_told(tmp_path: Path, kind: str) -> None:
    program = HOLDER.replace("time.sleep(60)", "time.sleep(0.3); lock.release(); time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with RunLock(tmp_path).acquire(wait_seconds=30) as lock:
            assert lock.held
    finally:
        holder.kill()
        holder.wait()


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    # The child says it, when it is through with its part of the fork.
    program = HOLDER.replace('print("held"', 'import os\nif os.fork(): time.sleep(60)\nprint("held"')
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "flock"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        RunLock(tmp_path).acquire().release()
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["lease"], indirect=True)
def test_a_silent_lease_of_another_host_can_be_taken_and_its_holder_notices(tmp_path: Path, kind: str) -> None:
    lease = tmp_path / "trainer.lease"
    lease.write_text(json.dumps({"host": "far", "pid": 1, "since": time.time(), "token": "theirs"}))
    with pytest.raises(RunFolderError, match="host far, pid 1"):
        RunLock(tmp_path).acquire()
    os.utime(lease, (time.time() - 60, time.time() - 60))
    lock = RunLock(tmp_path).acquire()
    assert lock.held
    lease.write_text(json.dumps({"host": "far", "pid": 1, "since": time.time(), "token": "theirs"}))
    assert not lock.held
    lock.release()
    assert json.loads(lease.read_text())["token"] == "theirs"


@pytest.mark.parametrize("kind", ["lease"], indirect=True)
def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path, kind: str) -> None:
    lock = RunLock(tmp_path, lease_seconds=0.3).acquire()
    old = time.time() - 60
    os.utime(tmp_path / "trainer.lease", (old, old))
    deadline = time.monotonic() + 30
    while (tmp_path / "trainer.lease").stat().st_mtime < old + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.release()


def _race(folder: str, barrier: object, won: object) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    runlock.fcntl.flock = unsupported  # type: ignore[assignment]
    barrier.wait()  # type: ignore[attr-defined]
    try:
        lock = RunLock(Path(folder)).acquire()
    except RunFolderError:
        return
    won.put(os.getpid())  # type: ignore[attr-defined]
    time.sleep(0.2)
    assert lock.held


def test_of_many_that_find_a_stale_lease_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        lease = folder / "trainer.lease"
        lease.write_text(json.dumps({"host": "far", "pid": 1, "since": 0.0, "token": "theirs"}))
        os.utime(lease, (1.0, 1.0))
        barrier, won = context.Barrier(4), context.Queue()
        racers = [context.Process(target=_race, args=(str(folder), barrier, won)) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        winners = [won.get(timeout=10)]
        assert won.empty()
        assert len(winners) == 1
        assert [racer.exitcode for racer in racers] == [0] * 4


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="cannot use the folder"):
        RunLock(tmp_path / "run").acquire()
