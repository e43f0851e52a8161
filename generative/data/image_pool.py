"""Encoded images by number, wherever they come from, and a folder of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from generative.data.documents import listing
from generative.data.found import NAMED
from generative.data.image_config import FolderImageConfig
from generative.data.image_decode import SUFFIXES, Encoded
from generative.errors import DataError


@dataclass(frozen=True)
class Labels:
    """Classes int64[N] of all images: numbers of `names`."""

    values: NDArray[np.int64]
    names: tuple[str, ...]

    def under(self, names: tuple[str, ...], where: str) -> NDArray[np.int64]:
        """The same classes, as numbers of other names.

        Raises:
            DataError: a class that is not among them.
        """
        number, few = {name: i for i, name in enumerate(names)}, ", ".join(names[:NAMED])
        unknown = sorted(set(self.names) - set(names))
        if unknown:
            raise DataError(
                f"{where}: classes that the training images do not have: {', '.join(unknown[:NAMED])}",
                expected=f"some of their {len(names)} ({few}{', ...' if len(names) > NAMED else ''})",
                remedy="name the classes alike, or hold out a fraction (data.validation_fraction) instead",
            )
        return np.array([number[name] for name in self.names], dtype=np.int64)[self.values]


def labels_from_names(names: Sequence[str]) -> Labels:
    """Classes numbered in the order of their names."""
    known, values = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    return Labels(values.astype(np.int64), tuple(map(str, known)))


class Pool(Protocol):
    """Encoded images by number."""

    description: str

    def identity(self) -> dict[str, Any]:
        """JSON that changes when an image changes; cheap."""
        ...

    def __len__(self) -> int: ...

    def files(self, numbers: Sequence[int]) -> Sequence[Encoded]:
        """The images of some numbers."""
        ...

    def name(self, number: int) -> str:
        """What a person would call it."""
        ...

    def labels(self) -> Labels | None:
        """The class of every image, where there are classes."""
        ...


class FolderPool:
    """Image files of a folder, sorted by path.

    Args:
        root: the folder.
        pattern: glob syntax; other than image files are left out.
        classes: the first folder below `root` is an image's class.
        key: of the configuration, that names the folder.

    Raises:
        DataError: no such folder, or no image in it.
    """

    def __init__(self, root: Path, pattern: str, classes: bool, key: str = "path") -> None:
        self.root, self.classes, self.description = root, classes, f"images {root.name}"
        if not root.is_dir():
            raise DataError(f"{root}: no such folder", expected="a folder of images", remedy=f"correct data.{key}")
        found = (p for p in root.glob(pattern) if p.suffix.lower() in SUFFIXES and p.is_file())
        self.paths = sorted(found, key=lambda path: path.relative_to(root).as_posix())
        if not self.paths:
            raise DataError(
                f"{root}: no image fits the pattern {pattern!r}",
                expected=f"at least one file that ends with {', '.join(SUFFIXES)}",
                remedy=f"correct data.{key} or data.pattern (for example '**/*.png')",
            )

    def identity(self) -> dict[str, Any]:
        """See Pool."""
        return {"folder": str(self.root), "listing": listing(self.root, self.paths), "classes": self.classes}

    def __len__(self) -> int:
        return len(self.paths)

    def files(self, numbers: Sequence[int]) -> Sequence[Encoded]:
        """See Pool."""
        return [self.paths[number] for number in numbers]

    def name(self, number: int) -> str:
        """See Pool."""
        return self.paths[number].relative_to(self.root).as_posix()

    def labels(self) -> Labels | None:
        """See Pool."""
        if not self.classes:
            return None
        parts = [path.relative_to(self.root).parts for path in self.paths]
        loose = ["/".join(p) for p in parts if len(p) == 1]
        if loose:
            raise DataError(
                f"{self.root}: {len(loose)} images lie in no class: {', '.join(loose[:NAMED])}",
                expected="every image in a folder that is its class (data.classes=true)",
                remedy="move them, leave them out with data.pattern='*/**/*', or set data.classes=false",
            )
        return labels_from_names([p[0] for p in parts])


def open_folder(config: FolderImageConfig) -> tuple[FolderPool, FolderPool | None]:
    """Training images, and the held-out ones where the configuration names their folder. Raises DataError."""
    held_out = config.validation_path
    return (
        FolderPool(config.path, config.pattern, config.classes),
        FolderPool(held_out, config.pattern, config.classes, "validation_path") if held_out else None,
    )
