"""One command given malformed input, in a process of its own, and what became of it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.robustness.damage import MARKER

ASIDE = (".tmp", ".part")
"""What files end with until they are whole (`data.files.write_aside`, `training.runfolder.replace_file`)."""

FINE = (0, 75)
"""Exit codes of commands that did what they could, or were interrupted."""


@dataclass(frozen=True)
class Attempt:
    """A command.

    Args:
        kind: of the input.
        words: of the command line, without `generative`.
        folder: where it runs; it writes nowhere else.
        output: file or folder that it makes, whole or not at all; None where it makes none.
    """

    kind: str
    words: tuple[str, ...]
    folder: Path
    output: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of it.

    Args:
        attempt: the command.
        code: its exit code; negative where a signal ended it; None where it did not end.
        told: what it said.
        halves: files that it left unfinished.
        executed: code that the input brought was run.
    """

    attempt: Attempt
    code: int | None
    told: str
    halves: tuple[str, ...]
    executed: bool

    @property
    def fault(self) -> bool:
        """It met an exception that nobody foresaw, or crashed."""
        crashed = self.code is not None and self.code < 0
        return crashed or "Traceback (most recent call last)" in self.told or "a fault of the program" in self.told

    @property
    def mute(self) -> bool:
        """It failed without saying what to do."""
        return self.code not in (*FINE, None) and "to fix:" not in self.told


def attempt(what: Attempt, seconds: float) -> Verdict:
    """Try it in a fork of this process, which should have imported what commands import, and run nothing yet."""
    log = what.folder / "said"
    pid = os.fork()
    if pid == 0:
        _become(what, log)
    code = _waited(pid, seconds)
    told = log.read_text(encoding="utf-8", errors="replace")
    return Verdict(what, code, told, tuple(_halves(what)), bool(list(what.folder.rglob(MARKER))))


def _become(what: Attempt, log: Path) -> None:
    os.setpgid(0, 0)
    null, to = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((null, 0), (to, 1), (to, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    code = 1
    try:
        os.chdir(what.folder)
        from launch.cli import main

        code = main(list(what.words))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _waited(pid: int, seconds: float) -> int | None:
    """The exit code; None where the process group had to be killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _halves(what: Attempt) -> Sequence[str]:
    """Files that were to be renamed when whole, and outputs that cannot be read."""
    found = [str(p.relative_to(what.folder)) for ending in ASIDE for p in what.folder.rglob(f"*{ending}")]
    if what.output is not None and what.output.exists():
        files = [what.output] if what.output.is_file() else [p for p in what.output.rglob("*") if p.is_file()]
        found += [str(p.relative_to(what.folder)) for p in files if not _readable(p)]
    return found


def _readable(path: Path) -> bool:
    try:
        READERS.get(path.suffix, Path.read_bytes)(path)
    except Exception:  # whatever a reader says: it is not whole
        return False
    return True


def _sound(path: Path) -> object:
    return importlib.import_module("soundfile").read(path)


def _image(path: Path) -> object:
    from PIL import Image

    with Image.open(path) as image:
        return image.load()


def _tensors(path: Path) -> object:
    from safetensors.numpy import load_file

    return load_file(path)


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".wav": _sound,
    ".flac": _sound,
    ".png": _image,
    ".safetensors": _tensors,
}
"""By suffix; other files need only be there."""
