"""Decoded images in one file of bytes [N, C, H, W], written in parallel and resumably.

A prepared folder holds `train.bin` and `validation.bin` (uint8), `train.labels.bin` and `validation.labels.bin`
(little-endian int64) where there are classes, and `manifest.json`, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.cache import available_cores
from generative.data.files import check_file, damaged, file_hash, write_aside, write_json
from generative.data.found import Found
from generative.data.image_data import NumberFile, StoredImages
from generative.data.image_decode import Encoded, Target, UnsuitableError, decode
from generative.data.image_headers import unsuitable
from generative.data.image_pool import Pool
from generative.data.manifest import MANIFEST, read_manifest
from generative.data.threads import map_in_threads

FORMAT = {"format": "generative-images", "version": 1}
_LABEL = "<i8"
_BLOCK_BYTES = 32 << 20
"""Pixels that are decoded and written together: what an interruption costs, and what the memory must hold."""


@dataclass(frozen=True)
class PackedSplit:
    """Number of images of a split, and the hashes of its pixels and labels (None: no classes)."""

    samples: int
    pixels: str
    labels: str | None


@dataclass(frozen=True)
class ImageManifest:
    """What a prepared folder says about itself.

    Args:
        shape: (C, H, W).
        splits: "train" and "validation".
        classes: their names, in the order of their numbers; None where there are none.
        description: the images' origin, for people.
        source: what they were made from.
    """

    shape: tuple[int, ...]
    splits: Mapping[str, PackedSplit]
    classes: tuple[str, ...] | None
    description: str
    source: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `manifest.json` in one step: it is there whole or not at all."""
        write_json(folder / MANIFEST, {**FORMAT, **asdict(self)})

    @staticmethod
    def read(folder: Path) -> ImageManifest:
        """Read `manifest.json`. Raises DataError where it is missing or not of this format."""

        def parse(values: dict[str, Any]) -> ImageManifest:
            splits = {name: PackedSplit(**split) for name, split in values.pop("splits").items()}
            shape, classes = tuple(values.pop("shape")), values.pop("classes")
            return ImageManifest(shape, splits, None if classes is None else tuple(classes), **values)

        return read_manifest(folder, FORMAT, parse)

    @property
    def fingerprint(self) -> str:
        """Identity of pixels and labels, wherever they came from."""
        splits = {name: asdict(split) for name, split in self.splits.items()}
        return hashlib.sha256(json.dumps([self.shape, self.classes, splits]).encode()).hexdigest()

    def check(self, folder: Path, hashes: bool = False) -> None:
        """Compare the files with the manifest: their sizes, and with `hashes` every byte. Raises DataError."""
        for name, split in self.splits.items():
            size = split.samples * int(np.prod(self.shape))
            check_file(pixel_file(folder, name), size, split.pixels if hashes else None)
            if split.labels is not None:
                check_file(label_file(folder, name), split.samples * 8, split.labels if hashes else None)

    def source_of(self, folder: Path, name: str, mirror: bool = False) -> StoredImages:
        """The samples of a split."""
        split = self.splits[name]
        labels = None if split.labels is None else NumberFile(label_file(folder, name), split.samples, (), _LABEL)
        return StoredImages(NumberFile(pixel_file(folder, name), split.samples, self.shape), labels, mirror=mirror)


def pixel_file(folder: Path, split: str) -> Path:
    """Pixels of a split."""
    return folder / f"{split}.bin"


def label_file(folder: Path, split: str) -> Path:
    """Labels of a split."""
    return folder / f"{split}.labels.bin"


def journal_file(folder: Path, split: str) -> Path:
    """How far the pixels of a split have got; only in unfinished folders."""
    return folder / f"{split}.done"


def pack(
    pool: Pool,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
    target: Target,
    folder: Path,
    split: str,
    tell: Callable[[int], None],
) -> PackedSplit:
    """Write a split; goes on after the last block that an earlier attempt finished in this folder.

    Args:
        pool: of encoded images.
        rows: which of them, int64[N].
        labels: of these, int64[N].
        target: what they are decoded to.
        folder: where the files go.
        split: their name.
        tell: gets the number of images that each call adds.

    Raises:
        DataError: images whose content is damaged, naming the first few; a disk that gives back other bytes.
    """
    path, journal = pixel_file(folder, split), journal_file(folder, split)
    size = int(np.prod(target.shape))
    with path.open("a+b") as file:
        done = resume(file, journal, size)
        sha = _hash(file)
        tell(done)
        for block in _blocks(pool, rows[done:], target, max(1, _BLOCK_BYTES // size)):
            sha.update(block.data)
            file.write(block.data)
            file.flush()
            os.fsync(file.fileno())
            done += len(block)
            write_json(journal, {"images": done})
            tell(len(block))
    if path.stat().st_size != len(rows) * size or file_hash(path) != sha.hexdigest():
        raise damaged(path, "what was read back differs from what was written")
    if labels is None:
        return PackedSplit(len(rows), sha.hexdigest(), None)
    numbers = labels.astype(_LABEL).tobytes()
    write_aside(label_file(folder, split), numbers)
    return PackedSplit(len(rows), sha.hexdigest(), hashlib.sha256(numbers).hexdigest())


def resume(file: BufferedRandom, journal: Path, size: int) -> int:
    """Number of images in the file that the journal vouches for; what comes after them is cut off.

    Args:
        file: opened to read and append.
        journal: {"images": how many are whole}.
        size: bytes of one.
    """
    try:
        done = int(json.loads(journal.read_text(encoding="utf-8"))["images"])
    except (OSError, ValueError, KeyError, TypeError):
        done = 0
    if os.fstat(file.fileno()).st_size < done * size:
        done = 0
    file.truncate(done * size)
    return done


def _hash(file: BufferedRandom) -> Any:
    file.seek(0)
    return hashlib.file_digest(file, "sha256")


def _blocks(pool: Pool, rows: NDArray[np.int64], target: Target, length: int) -> Iterator[NDArray[np.uint8]]:
    """uint8[at most `length`, C, H, W] one after the other, each decoded in threads."""
    attempt = partial(_attempt, target=target)
    with ThreadPoolExecutor(available_cores()) as threads:
        for first in range(0, len(rows), length):
            numbers = rows[first : first + length].tolist()
            images = list(map_in_threads(threads, attempt, pool.files(numbers)))
            _check(pool, numbers, images)
            yield np.stack(images)


def _attempt(file: Encoded, target: Target) -> NDArray[np.uint8] | str:
    try:
        return decode(file, target)
    except UnsuitableError as error:
        return str(error)


def _check(pool: Pool, numbers: Sequence[int], images: Sequence[NDArray[np.uint8] | str]) -> None:
    found = Found()
    for number, image in zip(numbers, images, strict=True):
        if isinstance(image, str):
            found.add(f"{pool.name(number)} ({image})")
    if found.count:
        raise unsuitable(pool.description, found, len(images))
