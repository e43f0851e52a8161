"""Files that are there whole or not at all, and the lines of those that users bring."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.errors import DataError


def damaged(path: Path, what: str) -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(
        f"{path}: damaged data ({what})",
        expected="the file as it was written",
        remedy="delete the folder and prepare the data again, or copy it again from where it came",
    )


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, size: int, sha256: str | None) -> None:
    """Compare a file's size, and its sha256 if one is given. Raises DataError."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise damaged(path, f"{error.strerror}") from error
    if found != size:
        raise damaged(path, f"{found} bytes, where {size} were expected")
    if sha256 is not None and file_hash(path) != sha256:
        raise damaged(path, "its sha256 differs from the one recorded")


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a text in UTF-8, with or without a byte order mark, without their ends.

    Newlines (of any system) end a line. The other characters at which `str.splitlines` cuts (U+2028, U+0085, ...) are
    part of what people write, and of valid JSON lines.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            yield line.removesuffix("\n")


def write_json(path: Path, values: Any) -> None:
    """Write JSON aside, flush it to the disk, and rename it into place."""
    write_aside(path, json.dumps(values, indent=1, ensure_ascii=False).encode())


def write_aside(path: Path, data: bytes | memoryview) -> None:
    """Write a file under another name, flush it to the disk, and rename it into place."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def map_file(path: Path, dtype: str, count: int, offset: int = 0) -> NDArray[Any]:
    """`count` numbers of a file after `offset` bytes, memory-mapped for reading.

    A plain array, because slices of np.memmap cost several times more.

    Raises:
        DataError: it is missing or too short.
    """
    if count == 0:
        return np.empty(0, dtype=dtype)
    try:
        return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,)))
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
