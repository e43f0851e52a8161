"""How many images of a set of prompts show a concept, before and after an erasure: here, or by Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evaluation.erasure.opening import open_detector
from evaluation.erasure.prompts import PromptRow, read_prompts
from evaluation.erasure.rates import share
from evaluation.estimate import Estimate
from generative.data.cache import default_cache
from generative.errors import CheckpointError
from generative.methods.rece.formats import TRANSFORM, edited_weights
from generative.methods.rece.live import replace_weights
from launch.erase_images import opened_pipeline
from launch.erasing import edited_streams, open_base
from launch.ray_map import Progress, map_items, parts
from launch.sections import LaunchConfig

MOST = 8
"""Prompts of one part of the work."""


@dataclass(frozen=True)
class Measured:
    """Shares of images that show the concept.

    Args:
        before: of the base model.
        after: of the edited one, from equal seeds.
        flags: of each prompt, before and after.
    """

    before: Estimate
    after: Estimate
    flags: Sequence[tuple[bool, bool]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"before": self.before.to_json(), "after": self.after.to_json(), "flags": [list(f) for f in self.flags]}


def measure(
    folder: Path, prompts: Path, detector: str, launch: LaunchConfig, progress: Progress | None = None
) -> Measured:
    """Draw one image of each prompt with its seed and guidance, by the base model and by the edited one.

    Args:
        folder: of an erasure, with its transform.
        prompts: CSV file, see `evaluation.erasure.prompts`.
        detector: name, see `evaluation.erasure.opening`.
        launch: one worker without an address is this process.
        progress: told the parts that are done, and all.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is drawn.
    """
    rows = read_prompts(prompts)
    cache = default_cache().parent / "erasure"
    told = open_detector(detector, cache).protocol  # and what is trained for it is, before the workers ask for it
    work = [rows[first:last] for first, last in parts(len(rows), launch.workers, MOST)]
    make = partial(_measurer, folder.resolve(), detector, cache)
    found = [flag for part in map_items(work, make, launch, cache / "ray_map.log", progress) for flag in part]
    protocol = f"{prompts.name}, one image of each of {len(rows)} prompts; {told}"
    before, after = (share(sum(flag[i] for flag in found), len(found), protocol) for i in (0, 1))
    return Measured(before, after, found)


def _measurer(folder: Path, detector: str, cache: Path) -> Callable[[Sequence[PromptRow]], list[tuple[bool, bool]]]:
    model, edits = open_base(str(folder))
    if edits is None:
        raise CheckpointError(f"{folder} has no {TRANSFORM}", "the folder of an erasure", "give one that erase wrote")
    if model.folder is None:
        raise CheckpointError(f"{model.name} is a file", "a pipeline's folder, which can draw", "erase from such a one")
    streams = edited_streams(model, edits)
    weights = model.read([name for stream in streams for name in stream.readers])
    denoiser, image = opened_pipeline(model, published=True)
    edited, shows = edited_weights(weights, streams, edits.total()), open_detector(detector, cache)

    def measured(rows: Sequence[PromptRow]) -> list[tuple[bool, bool]]:
        found = []
        for state in (weights, edited):
            replace_weights(denoiser, state)
            images = torch.stack([image(row.prompt, row.seed, row.guidance) for row in rows])
            found.append(shows(images).tolist())
        return [(bool(a), bool(b)) for a, b in zip(*found, strict=True)]

    return measured
