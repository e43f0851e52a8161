"""Corpora: documents by number, with their sizes known before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from generative.data.config import BuiltinTextConfig, FilesTextConfig
from generative.data.order import permute
from generative.errors import DataError

_NO_TEXT_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


class Span(NamedTuple):
    """Bytes start .. stop-1 of a document; `ends`: the document ends there."""

    document: int
    start: int
    stop: int
    ends: bool


class Corpus(Protocol):
    """Documents by number. Picklable, so that several processes can read it."""

    description: str

    def identity(self) -> dict[str, Any]:
        """JSON that changes when the text changes; cheap."""
        ...

    def sizes(self) -> NDArray[np.int64]:
        """Size of each document, in bytes of UTF-8."""
        ...

    def read(self, document: int, start: int, stop: int) -> bytes:
        """Bytes start .. stop-1 of a document, fewer at its end."""
        ...

    def texts(self, spans: Sequence[Span]) -> list[str]:
        """The text of each span. Raises DataError where it is not UTF-8 or has changed."""
        ...


def decode(data: bytes, span: Span, where: str) -> str:
    """Text of a span's bytes.

    Raises:
        DataError: fewer bytes than the span has, or no UTF-8.
    """
    if len(data) != span.stop - span.start:
        raise DataError(
            f"{where}: has {len(data)} bytes where {span.stop - span.start} were: it has changed while it was read",
            expected="files that stay as they are while they are prepared",
            remedy="give the same command again",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {span.start + error.start} is not UTF-8",
            expected="text in UTF-8",
            remedy="convert the file (iconv -f latin1 -t utf-8), or leave it out with data.pattern",
        ) from error


class FileCorpus:
    """Text files, one document each, in the given order."""

    def __init__(self, root: Path, paths: Sequence[Path], description: str, identity: dict[str, Any]) -> None:
        self.paths, self.description, self._identity = tuple(paths), description, identity
        self.root = root
        self._sizes = np.array([path.stat().st_size for path in self.paths], dtype=np.int64)

    def identity(self) -> dict[str, Any]:
        """See Corpus."""
        return self._identity

    def sizes(self) -> NDArray[np.int64]:
        """See Corpus."""
        return self._sizes

    def read(self, document: int, start: int, stop: int) -> bytes:
        """See Corpus."""
        try:
            with self.paths[document].open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        except OSError as error:
            raise DataError(
                f"{self.paths[document]}: {error.strerror}",
                expected="a readable file",
                remedy="check its permissions, or leave it out with data.pattern",
            ) from error

    def texts(self, spans: Sequence[Span]) -> list[str]:
        """See Corpus."""
        return [decode(self.read(s.document, s.start, s.stop), s, str(self.paths[s.document])) for s in spans]


def digest(lines: Iterable[object]) -> str:
    """Short hash of a list of values."""
    return hashlib.sha256(json.dumps([str(line) for line in lines]).encode()).hexdigest()[:32]


def listing(root: Path, paths: Sequence[Path]) -> str:
    """Short hash of names, sizes and times of change: it differs when a file was edited, added or removed."""
    return digest((path.relative_to(root), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)


def files_corpus(path: Path, pattern: str) -> FileCorpus:
    """A file, or the files of a folder that fit a glob pattern, sorted.

    Raises:
        DataError: nothing there.
    """
    if path.is_file():
        root, paths = path.parent, [path]
    elif path.is_dir():
        root, paths = path, sorted(p for p in path.glob(pattern) if p.is_file())
    else:
        raise DataError(f"{path}: no such file or folder", expected="a text file or folder", remedy="correct data.path")
    if not paths:
        raise DataError(
            f"{path}: no file fits the pattern {pattern!r}",
            expected="at least one text file",
            remedy="correct data.path or data.pattern (for example '**/*.md')",
        )
    return FileCorpus(root, paths, f"{path.name}", {"files": str(path), "listing": listing(root, paths)})


def _library_files(root: Path) -> list[Path]:
    found = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if name not in _NO_TEXT_FOLDERS)
        # _sysconfigdata holds the flags of this one build of Python, so it would differ from machine to machine.
        found += [Path(folder, n) for n in names if n.endswith(".py") and not n.startswith("_sysconfigdata")]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _capped(sizes: NDArray[np.int64], max_documents: int | None, max_bytes: int | None) -> list[int]:
    """Documents that stay under the caps, taken in a fixed shuffled order, so that all topics are among them."""
    shuffled = permute(np.arange(len(sizes)), len(sizes), seed=0, epoch=0)[:max_documents]
    if max_bytes is not None:
        shuffled = shuffled[np.cumsum(sizes[shuffled]) <= max_bytes]
    return sorted(shuffled.tolist())


def builtin_corpus(config: BuiltinTextConfig) -> FileCorpus:
    """The *.py files of the installed standard library, without tests.

    Raises:
        DataError: this Python comes without sources, or the caps leave nothing.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = _library_files(root)
    sizes = np.array([path.stat().st_size for path in paths], dtype=np.int64)
    kept = [paths[i] for i in _capped(sizes, config.max_documents, config.max_bytes)] if paths else []
    if not kept:
        raise DataError(
            f"the built-in corpus is empty: {len(paths)} Python sources in {root}, none under the caps",
            expected="a Python installation with the sources of its library",
            remedy="raise data.max_bytes, or use data.name=files with text of your own",
        )
    # Names and sizes, not times: all machines with this version of Python then agree on the identity.
    identity = digest((path.relative_to(root), path.stat().st_size) for path in kept)
    version = platform.python_version()
    return FileCorpus(root, kept, f"Python {version} library", {"builtin": version, "listing": identity})


def open_files(config: FilesTextConfig) -> tuple[FileCorpus, FileCorpus | None]:
    """Training corpus, and the held-out one where the configuration names it."""
    held_out = files_corpus(config.validation_path, config.pattern) if config.validation_path else None
    return files_corpus(config.path, config.pattern), held_out
