"""Which checkpoints are kept, and the clearing away of what crashes left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from generative.training.checkpoint.format import step_of
from generative.training.runfolder import replace_file

PROTECTED = "protected.json"


def surplus_steps(steps: Collection[int], keep_last: int, keep_every: int, protected: Collection[int]) -> list[int]:
    """The steps that rotation removes, ascending.

    Kept are the `keep_last` newest, those divisible by `keep_every` (0: none), and the protected ones.
    """
    newest = set(sorted(steps)[-keep_last:])
    return [
        step
        for step in sorted(steps)
        if not (step in newest or step in protected or (keep_every and step % keep_every == 0))
    ]


def complete_steps(folder: Path) -> list[int]:
    """Steps of the folders that carry a complete checkpoint's name, ascending."""
    if not folder.is_dir():
        return []
    return sorted(step for path in folder.iterdir() if (step := step_of(path.name)) is not None and path.is_dir())


def clear_unfinished(folder: Path, living: Callable[[str], bool]) -> None:
    """Removes folders of unfinished writes and deletions, but not those whose name is still `living`."""
    for path in folder.glob("step_*.tmp-*"):
        if not living(path.name):
            shutil.rmtree(path, ignore_errors=True)


def read_protected(folder: Path) -> dict[str, int]:
    """Protected steps by label; a missing or damaged file protects nothing."""
    try:
        found = json.loads((folder / PROTECTED).read_bytes())
        return {str(label): int(step) for label, step in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_protected(folder: Path, protected: dict[str, int]) -> None:
    """Replaces the file of protected steps."""
    replace_file(folder / PROTECTED, json.dumps(protected).encode())
