"""Samples of a generator as pictures, beside their nearest training images, and the watch over its modes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.image_monitor import Neighbourhood, neighbourhood
from generative.data.captioned_files import read_prompts
from generative.data.image_files import grid_png, points_png
from generative.data.images import ImageData
from generative.errors import ConfigError
from generative.randomness import Streams
from generative.training.runfolder import replace_file
from launch.image_sections import ImageSampling

SMALL, LEGIBLE = 32, 64
"""Images of fewer pixels than the first are enlarged to about the second."""

FEWEST = 20
"""Samples below which nothing can be said of neighbours."""

COMPANION = "_companion.png"
"""End of the name of another model's pictures from the same noise."""

MOST_NAMED = 6
"""Classes that a title or the name of a file tells one by one."""

CHUNK = 2000
"""Training images that are read at a time."""


@dataclass(frozen=True)
class Drawn:
    """What a look at a generator came to.

    Args:
        record: content of the samples file.
        files: pictures by name.
        seen: neighbourhood of the samples; None where not watched.
    """

    record: dict[str, Any]
    files: dict[str, bytes]
    seen: Neighbourhood | None

    def write(self, folder: Path) -> None:
        """The pictures, into a folder that may not exist yet; whoever writes the record does so after them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            replace_file(folder / name, content, durable=False)


Draw = Callable[[Tensor], Tensor]
"""int64[B] -> float32[B, *shape]: samples by number."""


def look(
    settings: ImageSampling,
    data: ImageData,
    sample: Draw,
    model: str,
    step: int,
    companion: tuple[str, Draw] | None = None,
    singly: bool = False,
    made: str = "samples",
) -> Drawn:
    """Draw samples 0 .. count-1, compare them with training samples, and make pictures.

    Args:
        settings: how many.
        data: training samples.
        sample: draws.
        model: name of the weights.
        step: that they were trained for.
        companion: what is shown beside the grid, in words, and how it is drawn by the same numbers.
        singly: also a file for each sample of the grid.
        made: what they are, in a word.
    """
    wanted = max(settings.count, settings.neighbours, settings.monitor)
    drawn = torch.cat([sample(torch.arange(i, min(i + 250, wanted))) for i in range(0, wanted, 250)])
    name = f"step_{step:06d}" + _in_a_name(data.asked_labels)
    grid = drawn[: settings.count]
    columns = settings.columns or _columns(len(grid), len(data.asked_labels) or 1)
    files = {f"{name}.png": picture(grid, columns, data.kind)}
    if singly:
        ends = [_in_a_name(data.labels_of(torch.tensor([i]))) for i in range(len(grid))]
        singles = (f"step_{step:06d}_{i:04d}{end}.png" for i, end in enumerate(ends))
        files |= {single: picture(one[None], 1, data.kind) for single, one in zip(singles, grid, strict=True)}
    item = {"kind": "grid", "file": f"{name}.png", "title": f"{len(grid):,} {made}{_in_words(data)}"}
    items: list[dict[str, Any]] = [item | {"count": len(grid), "columns": columns}]
    if data.asked_labels:
        items[0]["labels"] = list(data.labels_of(torch.arange(len(grid))))
    if data.captioned is not None:
        items[0]["captions"] = data.captioned.in_words(len(grid))
    if companion is not None:
        words, draw = companion
        files[name + COMPANION] = picture(draw(torch.arange(len(grid))), columns, data.kind)
        item = {"kind": "grid", "file": name + COMPANION, "title": words}
        items.append(item | {"count": len(grid), "columns": columns})
    if settings.neighbours and data.kind == "image":
        shown = drawn[: settings.neighbours]
        files[f"{name}_neighbours.png"] = picture(
            torch.cat([shown, nearest_images(shown, data)]), len(shown), data.kind
        )
        title = f"{len(shown)} samples above the nearest of {len(data.train):,} training images (distance of pixels)"
        item = {"kind": "neighbours", "file": f"{name}_neighbours.png", "title": title}
        items.append(item | {"count": len(shown), "columns": len(shown)})
    record = {"time": time.time(), "step": step, "model": model, "items": items}
    return Drawn(record, files, _watched(settings, data, drawn))


def _columns(count: int, classes: int) -> int:
    """Of a grid that is about as wide as high; of classes in turn each has columns of its own."""
    side = math.ceil(math.sqrt(count))
    return side if classes == 1 or classes > 2 * side else classes * max(1, round(side / classes))


def _in_a_name(labels: Sequence[int]) -> str:
    """Asked classes at the end of a file's name: "_class_3", "_class_3_7"; of many only that there are such."""
    if not labels:
        return ""
    return "_classes" if len(labels) > MOST_NAMED else "_".join(["_class", *map(str, labels)])


def _in_words(data: ImageData) -> str:
    """Asked classes at the end of a title: " of seven (7)", " of class 3, class 7 in turn"."""
    labels, names = data.asked_labels, data.class_names
    if not labels:
        return ""
    named = [f"{names[i]} ({i})" if i < len(names) else f"class {i}" for i in labels[:MOST_NAMED]]
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return f" of {', '.join(named)}{more}{' in turn' if len(labels) > 1 else ''}"


def _watched(settings: ImageSampling, data: ImageData, drawn: Tensor) -> Neighbourhood | None:
    count = min(settings.monitor, len(data.train))
    if count < FEWEST:
        return None
    numbers = np.linspace(0, len(data.train) - 1, count).round().astype(np.int64)
    real = data.pictures(data.train.fetch(numbers)["sample"])
    return neighbourhood(drawn[:count].flatten(1), real.flatten(1))


def nearest_images(samples: Tensor, data: ImageData) -> Tensor:
    """The training image nearest to each sample by the distance of pixels, float32[B, C, H, W]."""
    best, found = torch.full((len(samples),), torch.inf), torch.empty_like(samples)
    for start in range(0, len(data.train), CHUNK):
        real = data.pictures(data.train.fetch(np.arange(start, min(start + CHUNK, len(data.train))))["sample"])
        distance, index = torch.cdist(samples.flatten(1), real.flatten(1)).min(1)
        nearer = distance < best
        best[nearer], found[nearer] = distance[nearer], real[index[nearer]]
    return found


def picture(samples: Tensor, columns: int, kind: str) -> bytes:
    """A PNG: images side by side, tiny ones enlarged; points as dots."""
    if kind == "points":
        return points_png(samples)
    side = samples.shape[-1]
    return grid_png(samples, columns, scale=max(1, LEGIBLE // side) if side < SMALL else 1)


def prompted(data: ImageData, settings: ImageSampling, prompt: str | None = None) -> ImageData:
    """The data with the prompts that samples are asked for, where some are.

    Raises:
        ConfigError: prompts for a model that is told none, or two kinds of them.
        DataError: a file of prompts that cannot be read.
    """
    if prompt is None and settings.prompts is None:
        return data
    if data.captioned is None or (prompt is not None and settings.prompts is not None):
        raise ConfigError(
            f"sample.prompts={settings.prompts}" + ("" if prompt is None else " and --prompt"),
            "either of them, for a text-to-image model",
            "leave one out" if data.captioned else "leave out sample.prompts",
        )
    texts = [] if prompt is None else [prompt]
    if settings.prompts is not None:
        texts = read_prompts(settings.prompts)
    return replace(data, captioned=data.captioned.of(texts))


def sample_streams(seed: int) -> Streams:
    """Noise of all pictures of one seed."""
    return Streams(seed).within("samples")
