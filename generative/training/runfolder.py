"""Files of a run folder: written so that a crash at any moment leaves something that the next start can read.

Small files are replaced whole (written aside, flushed, renamed). Logs are JSON lines: a crash can tear the last line
only, readers leave a torn line out, and the next append removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from generative.errors import RunFolderError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no room: full disk, quota, file size limit."""

_TAIL = 1 << 16


def explain(error: OSError, doing: str, place: str = "run.dir") -> tuple[str, str, str]:
    """(problem, expected, remedy) of a failed file operation, for the message of a GenerativeError.

    Args:
        error: what the system said.
        doing: what was to be done.
        place: what the user calls the folder.
    """
    reason = f"{doing}: {error.strerror or error}"
    if error.errno in NO_SPACE:
        return reason, "room on the disk", f"free space there (or raise the quota), or choose another {place}"
    if error.errno == errno.EROFS:
        return reason, "a file system that can be written", f"choose another {place}, or mount it writable"
    if error.errno in (errno.EACCES, errno.EPERM):
        return reason, "permission to write there", f"change the owner or the permissions, or choose another {place}"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return reason, "a folder, not a file", f"move the file that is in the way, or choose another {place}"
    return reason, "a folder that can be written", f"look at the path, or choose another {place}"


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(*explain(error, doing)) from error


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk, so that a rename outlives a power cut."""
    with _synced(folder):
        pass


@contextlib.contextmanager
def _synced(folder: Path) -> Iterator[None]:
    """Flushes the names in a folder after what is done inside, even if the folder has been renamed meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Replaces `path` in one step; raises OSError and leaves the old file when it cannot.

    Whoever has waited for the file may rename its folder at once: the folder is open before.
    """
    aside = path.with_name(f".{_short(path.name)}.{os.getpid()}-{threading.get_ident()}.part")
    with _synced(path.parent) if durable else contextlib.nullcontext():
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise


def _short(name: str) -> str:
    """A name as it is, or a hash of one that leaves no room for more within the 255 bytes that systems allow."""
    data = os.fsencode(name)
    return name if len(data) <= 180 else hashlib.sha256(data).hexdigest()


def atomic_write(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Replaces `path` by `content` (text in UTF-8) in one step: a reader sees the old or the new content, never a part.

    Args:
        path: the file; its folder must exist.
        content: the whole new one.
        durable: flush to the disk before returning. Switch it off for files that are replaced every second.

    Raises:
        RunFolderError: full disk, missing permission, missing folder; the old content stays.
    """
    with _explained(f"cannot write {path}"):
        replace_file(Path(path), content.encode() if isinstance(content, str) else content, durable)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces a JSON file, in a folder that may not exist yet; see `atomic_write`.

    Numbers that are not finite are written as null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(finite(value), ensure_ascii=False, allow_nan=False))


def finite(value: Any) -> Any:
    """`value` with numbers that JSON does not know (nan, inf) as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _lock(descriptor: int) -> None:
    """Keeps other appenders away until the file is closed; where locks are unknown, one write call has to do."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _open_locked(path: Path) -> int:
    """Descriptor of the file that carries the name `path` while its lock is held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _lock(descriptor)
            # `truncate_lines` may have put another file in its place while this one waited for the lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _cut_torn_line(descriptor: int) -> None:
    """Removes what follows the last newline."""
    size = end = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    while end:
        begin = max(0, end - _TAIL)
        newline = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
            break
        end = begin
    if end < size:
        os.ftruncate(descriptor, end)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one JSON object as a line (ASCII); several processes may append to one file.

    Numbers that are not finite are written as null. A line that a crash or a full disk tore is removed first.

    Raises:
        RunFolderError: the file cannot be written; no part of the line stays.
    """
    line = (json.dumps(finite(record)) + "\n").encode()
    with _explained(f"cannot write {path}"):
        descriptor = _open_locked(Path(path))
        try:
            _cut_torn_line(descriptor)
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line of a log; None where the line is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _whole_lines(path: Path) -> list[bytes]:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log; [] where there is no file. Torn or damaged lines are left out."""
    with _explained(f"cannot read {path}"):
        records = map(parse_line, _whole_lines(path))
        return [record for record in records if record is not None]


def truncate_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> int:
    """Drops the lines that `keep` refuses (and damaged ones) in one step; returns how many went.

    Used on resume: metrics of steps that will be trained again must not stand there twice.
    """
    path = Path(path)
    with _explained(f"cannot rewrite {path}"):
        if not path.exists():
            return 0
        descriptor = _open_locked(path)
        try:
            lines = _whole_lines(path)
            kept = [line for line in lines if (record := parse_line(line)) is not None and keep(record)]
            if sum(map(len, kept)) != os.fstat(descriptor).st_size:
                replace_file(path, b"".join(kept))
        finally:
            os.close(descriptor)
    return len(lines) - len(kept)


def check_writable(folder: Path) -> None:
    """Makes `folder` and tries a real write in it (permission bits do not tell: root, read-only and full disks).

    Raises:
        RunFolderError: it cannot be made or written: permission, read-only or full disk, a file in the way.
    """
    folder = Path(folder)
    with _explained(f"cannot use the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}-{threading.get_ident()}"
        try:
            replace_file(probe, b"probe")
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
