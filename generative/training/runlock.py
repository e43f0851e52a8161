"""One trainer for one run folder.

The lock is the kernel's (`flock`), so it is gone the moment its holder dies, kill -9 included. File systems without
`flock` get a lease: a file whose holder renews its modification time, and that may be taken over once it is stale.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generative.errors import RunFolderError
from generative.training.runfolder import check_writable, explain

_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_RETRY = 0.05
_SETTLE = 0.1


def _identity() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), "token": uuid.uuid4().hex}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class RunLock:
    """The right to train in a run folder.

    Args:
        folder: the run folder.
        name: what is locked; the file is `<folder>/<name>.lock`. It stays after release: only the lock on it counts.
        lease_seconds: where `flock` is not supported, how long a silent holder on another host keeps the lock.
    """

    def __init__(self, folder: Path, name: str = "trainer", lease_seconds: float = 30.0) -> None:
        self.path = Path(folder) / f"{name}.lock"
        self._lease_path = Path(folder) / f"{name}.lease"
        self._lease_seconds = lease_seconds
        self._held: _FileLock | _Lease | None = None

    def acquire(self, wait_seconds: float = 0.0) -> RunLock:
        """Takes the lock, trying for `wait_seconds`; returns itself, so that `with lock.acquire():` works.

        Raises:
            RunFolderError: another process holds it (says which host and pid, and since when), or the folder cannot
                be written.
        """
        check_writable(self.path.parent)
        deadline = time.monotonic() + wait_seconds
        while (held := self._try()) is None:
            if time.monotonic() >= deadline:
                raise self._refusal()
            time.sleep(_RETRY)
        self._held = held
        return self

    def release(self) -> None:
        """Gives the lock back; nothing happens where it is not held."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def holder(self) -> dict[str, Any] | None:
        """{host, pid, since} as the last holder wrote it, or None; it may have died since (only `acquire` knows)."""
        return _read(self._lease_path) or _read(self.path)

    @property
    def held(self) -> bool:
        """Whether this process holds the lock now (a lease can be lost while a machine sleeps)."""
        return self._held is not None and self._held.alive()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _try(self) -> _FileLock | _Lease | None:
        try:
            return _FileLock.take(self.path)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise RunFolderError(*explain(error, f"cannot lock {self.path}")) from error
        return _Lease.take(self._lease_path, self._lease_seconds)

    def _refusal(self) -> RunFolderError:
        who = self.holder() or {}
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who["since"])) if "since" in who else "unknown"
        host, pid = who.get("host", "unknown"), who.get("pid", "unknown")
        return RunFolderError(
            f"{self.path.parent} is in use by another trainer: host {host}, pid {pid}, since {since}",
            "one trainer for one run folder",
            f"wait until it ends or stop it (on {host}: kill {pid}), or choose another run.dir",
        )


class _FileLock:
    """A held `flock`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        # A forked child (a loader worker) shares the open file and would keep the lock after its parent's death.
        os.register_at_fork(after_in_child=self._close)

    @staticmethod
    def take(path: Path) -> _FileLock | None:
        """The lock, or None where another process has it; OSError where the file system knows no locks."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Written in place: a rename would put a file there that nobody has locked.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_identity()).encode(), 0)
        return _FileLock(descriptor)

    def alive(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Lease:
    """A held lease file, renewed by a thread of its own."""

    def __init__(self, path: Path, token: str, seconds: float) -> None:
        self._path, self._token, self._seconds = path, token, seconds
        self._stop = threading.Event()
        threading.Thread(target=self._renew, name="run-lease", daemon=True).start()

    @staticmethod
    def take(path: Path, seconds: float) -> _Lease | None:
        """The lease, or None where another process holds a fresh one."""
        if path.exists() and not _take_away_if(path, lambda found: _stale(path, found, seconds)):
            return None
        mine = _identity()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        with open(descriptor, "w") as file:
            json.dump(mine, file)
        # A rival that found the stale lease at the same moment may move this one aside for an instant.
        time.sleep(_SETTLE)
        lease = _Lease(path, mine["token"], seconds)
        return lease if lease.alive() else None

    def alive(self) -> bool:
        found = _read(self._path)
        return not self._stop.is_set() and found is not None and found.get("token") == self._token

    def release(self) -> None:
        if self.alive():
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._stop.set()

    def _renew(self) -> None:
        while self.alive() and not self._stop.wait(self._seconds / 6):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _stale(path: Path, found: dict[str, Any] | None, seconds: float) -> bool:
    """Whether the holder of a lease is dead (same host: at once; elsewhere: silent for `seconds`)."""
    if found is not None and found.get("host") == socket.gethostname() and not _running(int(found["pid"])):
        return True
    # Both times are the file server's: clocks of two hosts may differ.
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > seconds
    except FileNotFoundError:
        return True
    finally:
        probe.unlink(missing_ok=True)


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _take_away_if(path: Path, stale: Callable[[dict[str, Any] | None], bool]) -> bool:
    """Removes a stale lease; False where it is fresh, or another process was quicker."""
    found = _read(path)
    if not stale(found):
        return False
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return True
    if _read(aside) != found:
        # Another process took the stale one over in between and this is its fresh lease: put it back.
        with contextlib.suppress(OSError):
            os.link(aside, path)
        aside.unlink(missing_ok=True)
        return False
    aside.unlink(missing_ok=True)
    return True
