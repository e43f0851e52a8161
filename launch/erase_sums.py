"""Sums over texts that stay, by Ray workers, each of which opens the text encoders once (see `launch.ray_map`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from generative.hub.erasing import Summing
from generative.hub.open_text_to_image import open_model
from generative.methods.rece.preserve import Kept
from generative.methods.rece.request import Encode, Sums, keep_sums
from generative.methods.rece.tokens import Variant
from launch.ray_map import Progress, map_items
from launch.sections import LaunchConfig

TEXTS = 2048
"""Of one part of the work."""


def summing_with(
    model: str,
    revision: str | None,
    text: str | None,
    launch: LaunchConfig,
    log: Path,
    progress: Progress | None = None,
    most: int = TEXTS,
) -> Summing:
    """`keep_sums` by workers: one d x d sum comes back of each part, and they are added up.

    Args:
        model: name or path of the base model, as all workers see it.
        revision: on the hub.
        text: pipeline with the text encoders, see `open_model`.
        launch: the workers.
        log: file for what Ray and the workers have to say.
        progress: told the parts that are done, and all.
        most: texts of a part.
    """

    def summed(texts: Iterable[str], encode: Encode, groups: Sequence[Variant]) -> Sums:
        work = list(_batches(iter(texts), most))
        parts = map_items(work, partial(_summer, model, revision, text, tuple(groups)), launch, log, progress)
        return added(parts)

    return summed


def _batches(texts: Iterator[str], most: int) -> Iterator[list[str]]:
    while part := list(islice(texts, most)):
        yield part


def added(parts: Iterable[Sums]) -> Sums:
    """Sums over all parts, in their order."""
    found: dict[tuple[str, Variant], Kept] = {}
    for part in parts:
        for key, kept in part.items():
            found[key] = found[key].plus(kept) if key in found else kept
    return found


def _summer(
    model: str, revision: str | None, text: str | None, groups: Sequence[Variant]
) -> Callable[[Sequence[str]], Sums]:
    encode = open_model(model, revision, text).encoders().encode
    return lambda texts: keep_sums(texts, encode, groups)
