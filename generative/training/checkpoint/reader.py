"""Reading checkpoints: by any number of ranks, only the bytes that are asked for, after a check of the hashes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from generative.errors import CheckpointError, suggestion
from generative.training.checkpoint.format import DTYPES, INDEX, decode_index, step_folder
from generative.training.checkpoint.rotation import complete_steps

OnEvent = Callable[[str, int, str], None]
"""Hears (kind, step, message); kind is "checkpoint" or "warning"."""

_REMEDY = "use another checkpoint of the run, or copy this one again from where it is whole"


class DamagedCheckpointError(CheckpointError):
    """Files of a checkpoint are missing or changed; an earlier checkpoint may serve instead."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"checkpoint {path} is damaged: {problem}", "files as they were written", _REMEDY)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"cannot read {path}: {error.strerror}", "permission to read it", "change its permissions")


class Checkpoint:
    """A complete checkpoint. Files are opened when something is read from them and closed by `close`.

    Raises:
        DamagedCheckpointError: the index is missing or damaged.
        CheckpointError: it cannot be read, or is of another version of the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._index = decode_index((self.path / INDEX).read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedCheckpointError(self.path, f"{INDEX} is missing") from error
        except OSError as error:
            raise _unreadable(self.path / INDEX, error) from error
        except (ValueError, KeyError) as error:
            raise DamagedCheckpointError(self.path, f"{INDEX}: {error}") from error
        self.step: int = self._index["step"]
        self.world: int = self._index["world"]
        self.meta: dict[str, Any] = self._index["meta"]
        self._handles: dict[str, Any] = {}

    def names(self) -> list[str]:
        """Names of the tensors, sorted."""
        return list(self._index["tensors"])

    def shape(self, name: str) -> tuple[int, ...]:
        """Full shape of a tensor."""
        return tuple(self._entry(name)["shape"])

    def dtype(self, name: str) -> torch.dtype:
        """Element type of a tensor."""
        return DTYPES[self._entry(name)["dtype"]]

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        return self.read(name).reshape(self.shape(name))

    def read(self, name: str, start: int = 0, numel: int | None = None) -> Tensor:
        """The elements [start, start + numel) of a flattened tensor, shape [numel], on the CPU; None: to the end."""
        total = math.prod(self.shape(name))
        end = total if numel is None else start + numel
        if not 0 <= start <= end <= total:
            raise CheckpointError(f"elements {start} to {end} of {name!r} in {self.path}", f"0 to at most {total}")
        out = torch.empty(end - start, dtype=self.dtype(name))
        for file, first, count in self._entry(name)["pieces"]:
            low, high = max(start, first), min(end, first + count)
            if low < high:
                out[low - start : high - start] = self._slice(file, name, low - first, high - first)
        return out

    def damage(self, hashes: bool = True) -> list[str]:
        """What is wrong with the files, one sentence each; [] for a whole checkpoint.

        Args:
            hashes: compare contents too (reads everything, several files at a time), not only sizes.
        """
        files = self._index["files"].items()
        with ThreadPoolExecutor(4, "checkpoint-verify") as pool:
            found = pool.map(lambda item: _file_damage(self.path / item[0], item[1], hashes), files)
            return [problem for problem in found if problem]

    def close(self) -> None:
        """Closes the files; reading opens them again."""
        self._handles.clear()

    def _entry(self, name: str) -> dict[str, Any]:
        tensors: dict[str, dict[str, Any]] = self._index["tensors"]
        if name not in tensors:
            raise CheckpointError(
                f"{self.path} holds no tensor {name!r}{suggestion(name, tensors)}",
                f"one of its {len(tensors)} names",
                "correct the name, or take a checkpoint of the same configuration",
            )
        return tensors[name]

    def _slice(self, file: str, name: str, low: int, high: int) -> Tensor:
        try:
            if file not in self._handles:
                self._handles[file] = safe_open(self.path / file, framework="pt")
            part: Tensor = self._handles[file].get_slice(name)[low:high]
        except Exception as error:  # safetensors raises several unrelated types
            raise CheckpointError(f"cannot read {name!r} from {self.path / file}: {error}", "", _REMEDY) from error
        return part


def _file_damage(path: Path, expected: dict[str, Any], hashes: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            return f"{path.name} has {size:,} bytes instead of {expected['bytes']:,}"
        if hashes and _sha256(path) != expected["sha256"]:
            return f"the contents of {path.name} have changed (sha256)"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_whole(path: Path, verify: bool) -> Checkpoint:
    """The checkpoint in a step folder; DamagedCheckpointError names what is damaged."""
    checkpoint = Checkpoint(path)
    problems = checkpoint.damage(hashes=verify)
    if problems:
        raise DamagedCheckpointError(path, "; ".join(problems))
    return checkpoint


def newest_in(folder: Path, verify: bool = True, on_event: OnEvent | None = None) -> Checkpoint | None:
    """The newest undamaged checkpoint in a `checkpoints` folder, or None.

    Damaged ones are passed over; each is told to `on_event` as a "warning" that names the file and what is wrong.

    Raises:
        CheckpointError: one that is not damaged cannot be read (permission, other version of the format). Going on
            from an older one instead would throw work away.
    """
    for step in reversed(complete_steps(folder)):
        try:
            return _open_whole(folder / step_folder(step), verify)
        except DamagedCheckpointError as error:
            if on_event is not None:
                on_event("warning", step, f"passed over: {error.problem}")
    return None


def open_checkpoint(path: Path | str, verify: bool = True, on_event: OnEvent | None = None) -> Checkpoint:
    """The checkpoint at `path`: a step folder, or the newest undamaged one of a run or `checkpoints` folder.

    Raises:
        CheckpointError: nothing there, an unfinished write, or everything there is damaged (says how).
    """
    path = Path(path)
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file",
            "a run folder, or a step_NNNNNN folder in it",
            f"of published weights, name the folder that `generative import {path} --out FOLDER` makes of them",
        )
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: no such folder", "a run folder, or a step_NNNNNN folder in it", "correct the path"
        )
    if ".tmp-" in path.name:
        raise CheckpointError(f"{path} is an unfinished checkpoint", "a complete one", "use its run folder instead")
    if (path / INDEX).exists() or path.name.startswith("step_"):
        return _open_whole(path, verify)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    heard: list[str] = []

    def hear(kind: str, step: int, message: str) -> None:
        heard.append(message)
        if on_event is not None:
            on_event(kind, step, message)

    return newest_in(folder, verify, hear) or _refuse(folder, heard)


def _refuse(folder: Path, heard: Sequence[str]) -> Checkpoint:
    found = "; ".join(heard) or "there is no step_NNNNNN folder in it"
    raise CheckpointError(f"no usable checkpoint in {folder}: {found}", "at least one undamaged checkpoint", _REMEDY)
