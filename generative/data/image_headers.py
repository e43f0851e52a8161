"""All images are looked at before the first is decoded: unreadable files, unequal sizes and channels in one message."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

from generative.data.cache import available_cores
from generative.data.files import write_json
from generative.data.found import NAMED, Found
from generative.data.image_config import DecodedImageConfig
from generative.data.image_decode import Encoded, Kind, Target, UnsuitableError, read_kind
from generative.data.image_pool import Pool
from generative.data.threads import map_in_threads
from generative.errors import DataError

_CHUNK = 1024
_THREADS = 8
"""More than cores, since a header is mostly waited for."""


@dataclass
class Headers:
    """What the headers of a pool say: images of each kind, and those that cannot be used, with reasons."""

    kinds: dict[Kind, Found] = field(default_factory=dict)
    unsuitable: Found = field(default_factory=Found)

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        kinds = [[astuple(kind), asdict(found)] for kind, found in self.kinds.items()]
        write_json(path, {"kinds": kinds, "unsuitable": asdict(self.unsuitable)})

    @staticmethod
    def read(path: Path) -> Headers | None:
        """What `write` kept, or None."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            kinds = {Kind(*kind): Found(**found) for kind, found in values["kinds"]}
            return Headers(kinds, Found(**values["unsuitable"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def scan(pool: Pool, tell: Callable[[int], None]) -> Headers:
    """Read all headers, in threads; `tell` gets the number of images that each call adds."""
    found = Headers()
    with ThreadPoolExecutor(max(_THREADS, available_cores())) as threads:
        for first in range(0, len(pool), _CHUNK):
            numbers = range(first, min(first + _CHUNK, len(pool)))
            for number, kind in zip(numbers, map_in_threads(threads, _kind, pool.files(numbers)), strict=True):
                name = pool.name(number)
                if isinstance(kind, Kind):
                    found.kinds.setdefault(kind, Found()).add(name)
                else:
                    found.unsuitable.add(f"{name} ({kind})")
            tell(len(numbers))
    return found


def _kind(file: Encoded) -> Kind | str:
    try:
        return read_kind(file)
    except UnsuitableError as error:
        return str(error)


def unsuitable(where: str, found: Found, total: int) -> DataError:
    """The error for images that cannot be used."""
    return DataError(
        f"{where}: {found.count} of {total} images cannot be used: {found}",
        expected="whole PNG, JPEG, WebP or BMP images, gray or RGB, of 8 bits a channel",
        remedy="replace, convert (magick IN -colorspace sRGB -depth 8 OUT.png) or remove them",
    )


def settle(parts: Mapping[str, Headers], config: DecodedImageConfig) -> Target:
    """What all images are decoded to.

    Args:
        parts: headers of each pool, by the pool's description.
        config: size, channels, background.

    Raises:
        DataError: images that cannot be used, or that are unequal where the configuration does not say what to do.
    """
    for where, headers in parts.items():
        if headers.unsuitable.count:
            total = headers.unsuitable.count + sum(found.count for found in headers.kinds.values())
            raise unsuitable(where, headers.unsuitable, total)
    where = " and ".join(parts)
    found = [(kind, some) for headers in parts.values() for kind, some in headers.kinds.items()]
    _check_transparency(where, config, [some for kind, some in found if kind.transparent])
    channels = config.channels or _channels(where, _groups((kind.channels, some) for kind, some in found))
    sizes = _groups(((kind.width, kind.height), some) for kind, some in found)
    width, height = _size(where, sizes, config)
    return Target(channels, height, width, config.resize, config.filter, config.background)


def _groups(items: Iterable[tuple[Any, Found]]) -> dict[Any, Found]:
    """Joined by key, the most frequent first."""
    counts: Counter[Any] = Counter()
    names: dict[Any, list[str]] = {}
    for key, some in items:
        counts[key] += some.count
        names.setdefault(key, []).extend(some.names)
    return {key: Found(count, sorted(names[key])[:NAMED]) for key, count in counts.most_common()}


def _check_transparency(where: str, config: DecodedImageConfig, found: Sequence[Found]) -> None:
    if found and config.background is None:
        some = _groups((True, each) for each in found)[True]
        raise DataError(
            f"{where}: {some.count} images have transparency: {some}",
            expected="opaque images",
            remedy="set data.background=white (or black), which is laid under them, or remove their alpha channel",
        )


def _channels(where: str, groups: dict[int, Found]) -> int:
    if len(groups) > 1:
        most, fewest = next(iter(groups)), groups[list(groups)[-1]]
        raise DataError(
            f"{where}: images with {most} channels ({groups[most].count}) and others ({fewest.count}: {fewest})",
            expected="all gray or all in colour",
            remedy="set data.channels=3 (gray becomes RGB) or data.channels=1, or remove some",
        )
    return next(iter(groups))


def _size(where: str, groups: dict[tuple[int, int], Found], config: DecodedImageConfig) -> tuple[int, int]:
    """(width, height) that all images have or get."""
    if config.size is None:
        wrong = groups if len(groups) > 1 else {}
        wanted, remedy = "images of one size", "set data.size=N data.resize=true to crop and scale them to N x N"
    elif config.resize:
        return config.size, config.size
    else:
        wrong = {size: some for size, some in groups.items() if size != (config.size, config.size)}
        wanted = f"data.size: {config.size}x{config.size} pixels"
        remedy = "set data.resize=true to crop and scale them, or correct data.size"
    if wrong:
        told = [f"{w}x{h} ({some.count}: {some})" for (w, h), some in list(wrong.items())[:NAMED]]
        raise DataError(
            f"{where}: {'unequal' if config.size is None else 'other'} sizes: {'; '.join(told)}",
            expected=wanted,
            remedy=remedy,
        )
    return next(iter(groups))
