"""Writing one checkpoint: each rank its file, then rank 0 the index and the rename that makes it count."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from generative.errors import CheckpointError
from generative.training.checkpoint.format import INDEX, encode_index
from generative.training.checkpoint.snapshot import Snapshot
from generative.training.runfolder import NO_SPACE, explain, replace_file, sync_folder

_SPARE = 1 << 20


def yield_to_training() -> None:
    """Lowers the priority of the calling thread (Linux: of it alone, and of threads that it starts).

    Where training keeps all cores busy, a checkpoint then takes longer but slows the steps less.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def write_part(folder: Path, rank: int, snapshot: Snapshot) -> None:
    """Writes this rank's tensors, flushes them, and then says so in a small file that rank 0 waits for."""
    os.makedirs(folder, exist_ok=True)
    _check_space(folder, snapshot.nbytes)
    file = f"rank{rank:04d}.safetensors"
    try:
        sha256 = _write_hashed(folder / file, snapshot)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} went away while rank {rank} wrote its part",
            "a folder that stays until the checkpoint is complete",
            "look for the error of rank 0, which removes the folder when it gives up",
        ) from error
    part = {"file": file, "bytes": snapshot.nbytes, "sha256": sha256, "tensors": snapshot.tensors}
    replace_file(folder / _part_name(rank), json.dumps(part).encode())


def _part_name(rank: int) -> str:
    return f"rank{rank:04d}.json"


def _failure_name(rank: int) -> str:
    return f"rank{rank:04d}.failed"


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise no_space(folder, needed, free)


def no_space(folder: Path, needed: int, free: int) -> CheckpointError:
    """The disk is too full for a checkpoint."""
    return CheckpointError(
        f"no room for a checkpoint in {folder}: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free",
        "room for one more checkpoint besides those that are kept",
        "free space there, keep fewer checkpoints, or choose another run.dir; the earlier checkpoints are untouched",
    )


def _write_hashed(path: Path, snapshot: Snapshot) -> str:
    """Writes and flushes the file while another thread hashes the same bytes in memory; returns the sha256."""
    with ThreadPoolExecutor(1, "checkpoint-hash") as hasher, open(path, "wb", buffering=0) as file:
        hashed = hasher.submit(_sha256, snapshot.header, snapshot.data)
        _write_all(file.fileno(), snapshot.header)
        _write_all(file.fileno(), snapshot.data)
        os.fsync(file.fileno())
        return hashed.result()


def _sha256(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def wait_for_parts(folder: Path, world: int, timeout: float, stop: threading.Event) -> list[dict[str, Any]]:
    """What the ranks wrote, in their order, as soon as all are done.

    Raises:
        CheckpointError: a rank failed, `stop` was set, or ranks are missing after `timeout` seconds (says which).
    """
    deadline, pause = time.monotonic() + timeout, 0.005
    parts: dict[int, dict[str, Any]] = {}
    while len(parts) < world:
        for rank in set(range(world)) - set(parts):
            _raise_failure(folder, rank)
            with contextlib.suppress(FileNotFoundError):
                parts[rank] = json.loads((folder / _part_name(rank)).read_bytes())
        if len(parts) < world and (time.monotonic() > deadline or stop.wait(pause)):
            missing = ", ".join(str(rank) for rank in range(world) if rank not in parts)
            raise CheckpointError(
                f"checkpoint {folder.name} is not complete: no part from rank {missing}"
                + ("; the store was closed" if stop.is_set() else f" after {timeout:g} s"),
                f"a part from each of {world} ranks in {folder}",
                "look for errors of these ranks; check that all nodes see the same run.dir",
            )
        pause = min(2 * pause, 0.25)
    return [parts[rank] for rank in range(world)]


def _raise_failure(folder: Path, rank: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        raise CheckpointError(f"rank {rank}: {(folder / _failure_name(rank)).read_text()}")


def finish(folder: Path, step: int, parts: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> None:
    """Proves that the parts are complete, writes the index and flushes everything: ready for the rename."""
    index = encode_index(step, parts, meta)
    for rank in range(len(parts)):
        (folder / _part_name(rank)).unlink()
    replace_file(folder / INDEX, index)


def publish(folder: Path, target: Path) -> None:
    """The one rename that makes a checkpoint count, flushed."""
    os.rename(folder, target)
    sync_folder(target.parent)


def remove(folder: Path, aside: Path) -> None:
    """Removes a complete checkpoint: first its name goes, so that a half-deleted folder never looks complete."""
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def abandon(folder: Path, rank: int, error: CheckpointError) -> None:
    """Removes what a failed save has written: everything by rank 0; a rank's own files, with a note why, by others."""
    if rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*rank{rank:04d}.*"):
            path.unlink()
        (folder / _failure_name(rank)).write_text(str(error))


def as_checkpoint_error(error: BaseException, folder: Path, needed: int) -> CheckpointError:
    """What went wrong while saving, told to a person."""
    if isinstance(error, CheckpointError):
        return error
    if isinstance(error, OSError):
        if error.errno in NO_SPACE:
            return no_space(folder, needed, _free(folder))
        return CheckpointError(*explain(error, f"cannot write the checkpoint {folder}"))
    return CheckpointError(
        f"saving the checkpoint {folder} failed: {type(error).__name__}: {error}",
        "a checkpoint that is written without an error",
        "give the same command again (earlier checkpoints are untouched); if it fails again, please report it",
    )


def _free(folder: Path) -> int:
    """Free bytes where `folder` is, or was."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder if folder.exists() else folder.parent).free
    return 0
