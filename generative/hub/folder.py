"""A folder that appears complete, by one rename, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from generative.errors import ConfigError, ResourceError
from generative.hub.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from generative.training.exported import CONFIG, INDEX, WEIGHTS
from generative.training.runfolder import explain, sync_folder

SPARE = 16 << 20
"""Bytes for everything besides the weights: tokenizer, configuration, model card."""

_LOCK = ".lock"
_MARKER = ".generative_export.json"
_ADAPTER = {ADAPTER_CONFIG, ADAPTER_WEIGHTS}


def check_target(folder: Path, force: bool | None) -> None:
    """Refuse a place where an export cannot go, before any work.

    Args:
        folder: what the export is to become.
        force: whether an earlier export there may be replaced; None: never, and there is no --force to be told of.

    Raises:
        ConfigError: something is there, and it may not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder}: this is a file", "a folder", "name another folder")
    if not force:
        remedy = "name another one" if force is None else "name another one, or give --force"
        raise ConfigError(f"{folder}: it is there already", "a new folder", remedy)
    if not _is_export(folder):
        raise ConfigError(
            f"{folder}: not replaced, since it holds other things than an export",
            f"a folder with {CONFIG} and {WEIGHTS}, and without folders in it; or one with nothing but what "
            "`--layout peft` or `--layout released` wrote",
            "name another folder, or remove this one yourself",
        )


def _is_export(folder: Path) -> bool:
    if any(entry.is_dir() for entry in folder.iterdir()):
        return False
    names = {entry.name for entry in folder.iterdir()}
    whole = CONFIG in names and not names.isdisjoint({WEIGHTS, INDEX})
    adapter = names >= _ADAPTER and names <= _ADAPTER | {"README.md"}
    return whole or adapter or (_MARKER in names and names <= {_MARKER, *_marked(folder)})


def mark(folder: Path, names: Iterable[str]) -> None:
    """Note that these files, named as other programs name theirs, are an export, which --force may replace."""
    (folder / _MARKER).write_text(json.dumps({"files": sorted(names)}) + "\n", encoding="utf-8")


def _marked(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / _MARKER).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: to be made.
        needed: bytes that will go into it.

    Raises:
        ResourceError: less is free.
    """
    there = next(parent for parent in folder.parents if parent.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed + SPARE:
        raise ResourceError(
            f"{folder}: {needed / 1e6:,.1f} MB to write, {free / 1e6:,.1f} MB free",
            f"room for the export and {SPARE / 1e6:.0f} MB more",
            "free space there, or name a folder on another disk",
        )


@contextlib.contextmanager
def appearing(folder: Path, force: bool) -> Iterator[Path]:
    """An empty folder to write into that becomes `folder` when the block ends without an error.

    It stands beside it as NAME.partial; what an export that was killed has left there is removed by the next one.

    Args:
        folder: as checked by `check_target`.
        force: replace an earlier export, which stays until this one is complete.

    Raises:
        ResourceError: another process exports to the same folder, or the disk cannot be written.
    """
    partial, old = (folder.with_name(f"{folder.name}.{word}") for word in ("partial", "replaced"))
    with _explained(folder):
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / _LOCK).open("w") as lock:
            _take(lock.fileno(), folder)
            try:
                _clear(partial, old, folder)
                yield partial
                _flush(partial)
                _rename(partial, folder, old, force)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem, expected, remedy = explain(error, f"cannot write the export {folder}")
        raise ResourceError(problem, expected, remedy.replace("another run.dir", "another folder")) from error


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ResourceError(
            f"{folder}: another process is exporting to it", "one at a time", "wait for it, or name another folder"
        ) from error
    except OSError:
        pass  # A file system without locks: two exports to one folder are then the user's to avoid.


def _clear(partial: Path, old: Path, folder: Path) -> None:
    """Removes what a killed export has left; one that was killed between its two renames is taken back."""
    for entry in partial.iterdir():
        if entry.name != _LOCK:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def open_to_others(folder: Path) -> None:
    """Give files in a folder of `appearing` the mode of any new file, as its lock has it: safetensors' own writer,
    which other libraries call, leaves them to their owner alone."""
    mode = stat.S_IMODE((folder / _LOCK).stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def _rename(partial: Path, folder: Path, old: Path, force: bool) -> None:
    check_target(folder, force)  # again: much may have happened since the first time
    if not folder.exists():
        partial.rename(folder)
    else:
        folder.rename(old)
        try:
            partial.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    # Not before the rename: another process could then lock, and clear, what is about to become the export.
    (folder / _LOCK).unlink()
    sync_folder(folder.parent)
