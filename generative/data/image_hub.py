"""Image data sets in the Hugging Face layout, pinned to a commit. Their code is never run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from generative.data.hub import load_split, resolve_revision
from generative.data.image_config import HubImageConfig
from generative.data.image_decode import Encoded
from generative.data.image_pool import Labels, labels_from_names
from generative.data.packages import needed
from generative.data.text_data import short_name
from generative.errors import DataError


class HubPool:
    """The rows of one or more splits; loaded when first read.

    Args:
        config: data set and columns.
        splits: read one after the other.
        revision: a commit.
    """

    def __init__(self, config: HubImageConfig, splits: Sequence[str], revision: str) -> None:
        self.config, self.splits, self.revision = config, tuple(splits), revision
        subset = f"/{config.config}" if config.config else ""
        self.description = f"hub images {short_name(config.id)}{subset} {'+'.join(splits)}"

    def identity(self) -> dict[str, Any]:
        """See Pool."""
        columns = {"column": self.config.column, "label_column": self.config.label_column}
        place = {"hub": self.config.id, "config": self.config.config, "splits": self.splits}
        return {**place, **columns, "revision": self.revision}

    @cached_property
    def _rows(self) -> Any:
        """All splits joined, images as {"bytes", "path"}."""
        parts = [load_split(self.config.id, self.config.config, split, self.revision)[0] for split in self.splits]
        library = needed("datasets", package="datasets", extra="hub", by="data.name=hub", instead="another data.name")
        try:
            joined = library.concatenate_datasets(parts)
        except ValueError as error:
            raise DataError(
                f"{self.description}: the splits differ in their columns ({error})",
                expected="splits of one form",
                remedy="correct data.extra_splits",
            ) from error
        column = image_column(joined.features, self.config)
        image = type(joined.features[column]).__name__ == "Image"
        return joined.cast_column(column, library.Image(decode=False)) if image else joined

    @cached_property
    def _images(self) -> Any:
        return self._rows.select_columns([image_column(self._rows.features, self.config)])

    def __len__(self) -> int:
        return len(self._rows)

    def files(self, numbers: Sequence[int]) -> Sequence[Encoded]:
        """See Pool."""
        rows = self._images[list(numbers)]
        return [encoded(value) for value in next(iter(rows.values()))]

    def name(self, number: int) -> str:
        """See Pool."""
        return f"row {number}"

    def labels(self) -> Labels | None:
        """See Pool."""
        column = label_column(self._rows.features, self.config)
        if column is None:
            return None
        values = self._rows.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
        where = f"{self.description}, column {column!r}"
        names = getattr(self._rows.features[column], "names", None)
        if all(isinstance(value, str) for value in values):
            return labels_from_names(values)
        wrong = [row for row, value in enumerate(values) if not isinstance(value, int) or value < 0]
        if wrong:
            raise DataError(
                f"{where}: {len(wrong)} rows without a class, the first is row {wrong[0]} ({values[wrong[0]]!r})",
                expected="class numbers from 0 on, or names",
                remedy="set data.label_column to the column of classes, or leave out the split that has none",
            )
        numbers = np.array(values, dtype=np.int64)
        return Labels(numbers, tuple(names or map(str, range(int(numbers.max(initial=-1)) + 1))))


def encoded(value: Any) -> Encoded:
    """The image of a row's value: bytes, {"bytes", "path"}, or nothing (no bytes)."""
    if isinstance(value, dict):
        value = value.get("bytes") or Path(value.get("path") or "")
    return value if isinstance(value, bytes | Path) and value != Path() else b""


def image_column(features: Any, config: HubImageConfig) -> str:
    """The column that holds images: the one named, or the only one that can.

    Raises:
        DataError: no such column, none that holds images, or several.
    """
    able = [str(name) for name, feature in features.items() if _holds_images(feature)]
    column = config.column or (able[0] if len(able) == 1 else None)
    if column is None or column not in able:
        seen = f"no image column {column!r}" if column else f"{len(able)} columns that can hold images"
        raise DataError(
            f"data set {config.id!r} has {seen}",
            expected=f"a column of images; it has {', '.join(features)} (images: {', '.join(able) or 'none'})",
            remedy="set data.column",
        )
    return column


def _holds_images(feature: Any) -> bool:
    """The library's image type, {"bytes", ...} or bytes (parquet files without its notes on types)."""
    if type(feature).__name__ == "Image":
        return True
    return "bytes" in feature if isinstance(feature, dict) else getattr(feature, "dtype", "") in _BINARY


_BINARY = ("binary", "large_binary")


def label_column(features: Any, config: HubImageConfig) -> str | None:
    """The column of classes: the one named, the only one of that type, or one that is called label.

    Raises:
        DataError: no such column.
    """
    if config.label_column is not None:
        if config.label_column not in features:
            raise DataError(
                f"data set {config.id!r} has no column {config.label_column!r}",
                expected=f"one of {', '.join(features)}",
                remedy="correct data.label_column",
            )
        return config.label_column
    classes = [str(name) for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if len(classes) == 1:
        return classes[0]
    return "label" if not classes and "label" in features else None


def open_hub_images(config: HubImageConfig) -> tuple[HubPool, HubPool | None]:
    """Training images, and the held-out ones where the configuration names their split. Raises DataError."""
    revision = resolve_revision(config.id, config.revision, "dataset")
    held_out = config.validation_split
    return (
        HubPool(config, (config.split, *config.extra_splits), revision),
        HubPool(config, (held_out,), revision) if held_out else None,
    )
