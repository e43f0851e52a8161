"""Decode the images of a folder or hub data set once: checked beforehand, in parallel, complete or not there at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.cache import PLAN, begin, default_cache, make_once
from generative.data.documents import digest
from generative.data.image_config import DecodedImageConfig, FolderImageConfig
from generative.data.image_headers import Headers, scan, settle
from generative.data.image_hub import open_hub_images
from generative.data.image_pack import ImageManifest, journal_file, pack
from generative.data.image_pool import Labels, Pool, open_folder
from generative.data.manifest import MANIFEST
from generative.data.order import permute
from generative.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the number of images that are done, and of all: each counts once when checked and once when decoded."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ImageJob:
    """What has to be decoded: `held_out` is a pool of its own, or None where a part of `pool` is held out."""

    config: DecodedImageConfig
    pool: Pool
    held_out: Pool | None

    @staticmethod
    def open(config: DecodedImageConfig) -> ImageJob:
        """The job of a configuration; the images are found but not read. Raises DataError."""
        found = open_folder(config) if isinstance(config, FolderImageConfig) else open_hub_images(config)
        return ImageJob(config, *found)

    def identity(self) -> dict[str, Any]:
        """All that decides about the pixels."""
        settings = ("size", "resize", "filter", "channels", "background", "max_samples")
        # Compared with None: a pool's truth is its length, for which a data set would have to be loaded.
        held_out = self.config.validation_fraction if self.held_out is None else self.held_out.identity()
        values = {key: getattr(self.config, key) for key in settings}
        return {"layout": 1, "images": self.pool.identity(), "held_out": held_out, **values}

    @property
    def key(self) -> str:
        """Name of the prepared folder."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:24]

    def build(self, partial: Path, progress: Progress) -> None:
        """Make (or go on making) the folder `partial`, with its manifest.

        Raises:
            DataError: unsuitable images; nothing is decoded then.
        """
        pools = {"train": self.pool, "validation": self.pool if self.held_out is None else self.held_out}
        rows = self._rows()
        counter = _Counter(progress, sum(map(len, self._pools())) + sum(map(len, rows.values())))
        parts = {pool.description: _headers(pool, partial.parent, counter.add) for pool in self._pools()}
        target = settle(parts, self.config)
        labels = {name: pool.labels() for name, pool in pools.items()}
        begin(partial, _json(self.identity()))
        splits, names = {}, None if labels["train"] is None else labels["train"].names
        for name, pool in pools.items():
            values = _values(labels[name], names, pool.description)
            chosen = None if values is None else values[rows[name]]
            splits[name] = pack(pool, rows[name], chosen, target, partial, name, counter.add)
        ImageManifest(target.shape, splits, names, self.pool.description, self.identity()).write(partial)
        for path in (partial / PLAN, *(journal_file(partial, name) for name in splits)):
            path.unlink(missing_ok=True)

    def _pools(self) -> list[Pool]:
        return [pool for pool in (self.pool, self.held_out) if pool is not None]

    def _rows(self) -> dict[str, Rows]:
        most = self.config.max_samples
        if self.held_out is not None:
            return {"train": some(len(self.pool), most), "validation": some(len(self.held_out), most)}
        return hold_out(some(len(self.pool), most), self.config.validation_fraction, self.pool.description)


def some(count: int, most: int | None) -> Rows:
    """At most `most` of `count` rows, picked by a fixed shuffle, in order."""
    return np.sort(permute(np.arange(count, dtype=np.int64)[:most], count, seed=0, epoch=0))


def hold_out(rows: Rows, fraction: float, where: str) -> dict[str, Rows]:
    """Training and held-out rows, picked by a fixed shuffle, in order: at least one of each unless `fraction` is 0.

    Raises:
        DataError: too few rows for that.
    """
    count = max(1, round(fraction * len(rows))) if fraction else 0
    if count >= len(rows):
        raise DataError(
            f"{where}: of {len(rows)} images {count} would be held out",
            expected="at least one image to train on besides",
            remedy="give more images, lower data.validation_fraction (0 holds out nothing), or raise data.max_samples",
        )
    shuffled = rows[permute(np.arange(len(rows), dtype=np.int64), len(rows), seed=0, epoch=1)]
    return {"train": np.sort(shuffled[count:]), "validation": np.sort(shuffled[:count])}


def _values(labels: Labels | None, names: tuple[str, ...] | None, where: str) -> NDArray[np.int64] | None:
    return None if labels is None or names is None else labels.under(names, where)


def _headers(pool: Pool, cache: Path, tell: Callable[[int], None]) -> Headers:
    """The headers of a pool, kept in the cache under its identity."""
    path = cache / f"headers-{digest([json.dumps(pool.identity(), sort_keys=True)])}.json"
    known = Headers.read(path)
    if known is None:
        known = scan(pool, tell)
        known.write(path)
    else:
        tell(len(pool))
    return known


def _json(values: dict[str, Any]) -> dict[str, Any]:
    """As it is read back from a file (tuples are lists there)."""
    found: dict[str, Any] = json.loads(json.dumps(values))
    return found


class _Counter:
    """Adds up and tells."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total
        progress(0, total)

    def add(self, count: int) -> None:
        self.done += count
        self.progress(self.done, self.total)


def prepare_images(
    config: DecodedImageConfig,
    cache: Path | None = None,
    *,
    progress: Progress | None = None,
    verify: bool = False,
) -> Path:
    """The folder of decoded images; made if it is not there, at once if it is.

    Args:
        config: which images, how large, what to hold out.
        cache: parent of all prepared folders; `config.cache` wins over it (None: `default_cache()`).
        progress: told how far it is.
        verify: also read every byte of what is there already and compare hashes; damaged data is made again.

    Raises:
        DataError: missing, unsuitable or unequal images, a missing package, a full disk.
    """
    job = ImageJob.open(config)
    tell = progress or (lambda done, total: None)
    return make_once(
        (config.cache or cache or default_cache()) / job.key,
        lambda folder: complete(folder, verify),
        lambda partial: job.build(partial, tell),
    )


def prepared_images(config: DecodedImageConfig, cache: Path | None = None) -> Path | None:
    """The folder that `prepare_images` has made already, or None; arguments and errors as there."""
    folder = (config.cache or cache or default_cache()) / ImageJob.open(config).key
    return folder if complete(folder) else None


def complete(folder: Path, verify: bool = False) -> bool:
    """Whether a prepared folder holds what its manifest says; with `verify` every byte is read."""
    if not (folder / MANIFEST).exists():
        return False
    try:
        ImageManifest.read(folder).check(folder, hashes=verify)
    except DataError:
        return False
    return True
