"""Captions, and which image each belongs to, from a table or a text file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.data.captioned_config import METADATA, CaptionedConfig
from generative.data.files import text_lines
from generative.data.found import Found
from generative.data.image_decode import SUFFIXES
from generative.data.packages import needed
from generative.errors import DataError, suggestion

KINDS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Captions:
    """Rows of a file: captions, and their images where there are some (of equal number)."""

    path: Path
    texts: list[str]
    images: list[Path] | None


def read_captions(config: CaptionedConfig) -> Captions:
    """The captions of a configuration, with the paths of their images, all of which are there.

    Raises:
        DataError: no such file, a column or image that is missing, rows without a caption, a damaged table.
    """
    path = config.captions or _metadata(config)
    columns = [config.caption_column, *([config.image_column] if config.images else [])]
    rows = _rows(path, columns)
    if not rows:
        raise DataError(f"{path}: no captions in it", "at least one row", "correct data.captions")
    blank = Found()
    for number, row in enumerate(rows, start=1):
        if not all(isinstance(row[column], str) and row[column].strip() for column in columns):
            blank.add(f"row {number}")
    if blank.count:
        raise DataError(
            f"{path}: {blank.count} of {len(rows)} rows without {' or '.join(map(repr, columns))}: {blank}",
            "text in each row",
            "fill them in, or remove these rows",
        )
    texts = [row[config.caption_column].strip() for row in rows]
    if config.images is None:
        return Captions(path, texts, None)
    images = [config.images / row[config.image_column] for row in rows]
    gone = Found()
    for image in images:
        if image.suffix.lower() not in SUFFIXES or not image.is_file():
            gone.add(str(image))
    if gone.count:
        raise DataError(
            f"{path}: {gone.count} of {len(rows)} rows name no image in {config.images}: {gone}",
            f"paths below data.images of files that end with {', '.join(SUFFIXES)}",
            "correct data.images or data.image_column, or remove these rows",
        )
    return Captions(path, texts, images)


def read_prompts(path: Path, column: str = CaptionedConfig.model_fields["caption_column"].default) -> list[str]:
    """Captions alone, of any of the kinds of file. Raises DataError: see `read_captions`."""
    return read_captions(CaptionedConfig(captions=path, caption_column=column)).texts


def _metadata(config: CaptionedConfig) -> Path:
    assert config.images is not None
    found = next((config.images / name for name in METADATA if (config.images / name).is_file()), None)
    if found is None:
        raise DataError(
            f"{config.images}: no captions ({', '.join(METADATA)}) in this folder",
            "a table with a caption and a file name for each image",
            "write one, or name it in data.captions",
        )
    return found


def _rows(path: Path, columns: list[str]) -> list[Mapping[str, Any]]:
    """Of a table, with at least these columns; the lines of a text as the first of them."""
    if path.suffix not in KINDS:
        raise DataError(f"{path}: a file of an unknown kind", f"one of {', '.join(KINDS)}", "convert it")
    if not path.is_file():
        raise DataError(f"{path}: no such file", "a file of captions", "correct data.captions")
    if path.suffix == ".parquet":
        return _parquet(path, columns)
    try:
        if path.suffix == ".txt":
            return [{columns[0]: line} for line in text_lines(path) if line.strip()]
        rows = list(_parsed(path))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise _damaged(path, error) from error
    for number, row in enumerate(rows, start=1):
        _check_columns(path, columns, row, f"row {number}")
    return rows


def _parsed(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".jsonl":
        yield from (json.loads(line) for line in text_lines(path) if line.strip())
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")


def _parquet(path: Path, columns: list[str]) -> list[Mapping[str, Any]]:
    library = needed(
        "pyarrow.parquet", package="pyarrow", extra="hub", by="a .parquet file", instead="a .csv or .jsonl file"
    )
    try:
        _check_columns(path, columns, dict.fromkeys(library.read_schema(path).names), "the table")
        rows: list[Mapping[str, Any]] = library.read_table(path, columns=columns).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are kinds of these
        raise _damaged(path, error) from error
    return rows


def _check_columns(path: Path, columns: list[str], row: Any, where: str) -> None:
    names = [str(name) for name in row] if isinstance(row, Mapping) else []
    for column in columns:
        if column not in names:
            raise DataError(
                f"{path}: no column {column!r} in {where}{suggestion(column, names)}",
                f"it among {', '.join(names) or 'named columns'}",
                "set data.caption_column and data.image_column to the names in the file",
            )


def _damaged(path: Path, error: Exception) -> DataError:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return DataError(f"{path}: cannot be read ({first[:200]})", "a whole table in UTF-8", "write it again")
