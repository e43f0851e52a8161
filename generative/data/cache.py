"""Prepared data on the disk: made once whoever asks, complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from generative.data.files import write_json
from generative.data.lock import locked
from generative.errors import DataError

PLAN = "work.plan"


def default_cache() -> Path:
    """Where prepared data goes if the configuration names no cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "generative" / "data"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_once(folder: Path, complete: Callable[[Path], bool], build: Callable[[Path], None]) -> Path:
    """`folder`, built as `NAME.partial` under a lock and renamed, unless it is complete already.

    Args:
        folder: the result; its parent is the cache.
        complete: whether a folder holds all that it should.
        build: makes the folder that it is given, or goes on with what an earlier attempt left there (see `begin`).

    Raises:
        DataError: a full disk, a cache that may not be written, and whatever `build` raises.
    """
    if not complete(folder):
        with disk_errors(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_name(f"{folder.name}.lock")) as alone:
                if not complete(folder):
                    mark = "partial" if alone else f"{os.getpid()}.partial"
                    partial = folder.with_name(f"{folder.name}.{mark}")
                    build(partial)
                    _commit(partial, folder, complete)
    return folder


def _commit(partial: Path, folder: Path, complete: Callable[[Path], bool]) -> None:
    """Rename into place. What is there already is damaged, or was made meanwhile where locks do not work."""
    if complete(folder):
        shutil.rmtree(partial)
        return
    if folder.exists():
        aside = folder.with_name(f"{folder.name}.{os.getpid()}.damaged")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    partial.rename(folder)


def begin(partial: Path, plan: dict[str, Any]) -> None:
    """Keep what an earlier attempt finished if it had the same plan, else start afresh."""
    path = partial / PLAN
    if partial.exists() and not (path.exists() and json.loads(path.read_text(encoding="utf-8")) == plan):
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    write_json(path, plan)


@contextmanager
def disk_errors(cache: Path) -> Iterator[None]:
    """Turns an OSError of writing into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or cache}: prepared data cannot be written ({error.strerror or error})",
            expected="a folder with room that may be written",
            remedy="free some space or set data.cache to another folder; what is finished is kept",
        ) from error
