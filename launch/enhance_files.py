"""Sound files that are enhanced: which, where results go, and how what goes wrong in writing them is told."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from generative.data.speech_files import SUFFIXES, find_sounds
from generative.errors import ConfigError, DataError, ResourceError, RunFolderError
from generative.training.runfolder import explain


@dataclass(frozen=True)
class File:
    """One file to enhance; `name`: its path below the folder that was given, which addresses its noise."""

    name: str
    source: Path
    target: Path

    @property
    def number(self) -> int:
        """Sample id of its noise, the same on every machine: the name without the suffix decides."""
        stem = Path(self.name).with_suffix("").as_posix()
        # Names of files are bytes; those that are no UTF-8 stand in Python's text by themselves.
        return int.from_bytes(hashlib.sha256(stem.encode(errors="surrogateescape")).digest()[:7], "big")

    @property
    def stamp(self) -> list[int]:
        """Size and time of the source, by which a change is seen; [] where it is gone."""
        try:
            found = self.source.stat()
        except OSError:
            return []
        return [found.st_size, found.st_mtime_ns]


def list_files(source: Path, target: Path) -> list[File]:
    """What is to be enhanced, and where to. Results of an earlier command, below `source`, are not noisy files.

    Raises:
        DataError, ConfigError: nothing there, another suffix, or a result that would replace a source.
    """
    if source.is_dir():
        if target.is_file():
            raise ConfigError(f"{target} is a file, but {source} is a folder", "a folder for the results", "name one")
        if target.resolve() == source.resolve():
            raise _replaced(target)
        inside = target.resolve() if source.resolve() in target.resolve().parents else None
        found = [path for path in find_sounds(source, "IN") if inside is None or inside not in path.resolve().parents]
        if not found:
            raise DataError(f"{source}: no wav or flac file but in {target}", "noisy files", "correct IN or OUT")
        names = [path.relative_to(source).as_posix() for path in found]
        files = [File(name, source / name, target / name) for name in names]
    elif source.is_file():
        for path in (source, target):
            if path.suffix.lower() not in SUFFIXES and not (path == target and path.is_dir()):
                raise ConfigError(
                    f"{path}: no wav or flac file",
                    f"a name that ends with {' or '.join(SUFFIXES)}",
                    "correct IN" if path == source else "name a file as OUT, or a folder that is there",
                )
        files = [File(source.name, source, target / source.name if target.is_dir() else target)]
    else:
        raise DataError(f"{source}: no such file or folder", "a wav or flac file, or a folder of them", "correct IN")
    sources = {file.source.resolve() for file in files}
    if any(file.target.resolve() in sources for file in files):
        raise _replaced(target)
    return files


def _replaced(target: Path) -> ConfigError:
    return ConfigError(
        f"{target}: the results would replace the noisy files", "another place", "name another folder as OUT"
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong in writing a file of OUT, as a ResourceError."""
    try:
        yield
    except (OSError, RunFolderError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise ResourceError(*explain(cause, f"write {path}", "OUT")) from error


def check_folder(folder: Path) -> None:
    """Make the folder of results, so that hours of work do not end at a place that cannot be written.

    Raises:
        ResourceError: it cannot be made or written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def not_written(error: ResourceError) -> str:
    """What went wrong in writing a result, and the remedy, in a line."""
    return f"{error.problem} ({error.remedy})"
