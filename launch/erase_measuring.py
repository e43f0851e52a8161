"""How many images of a set of prompts show a concept, before and after an erasure: here, or by Ray workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.erasure.opening import open_detector
from evaluation.erasure.prompts import PromptRow, described, read_prompts
from evaluation.erasure.rates import share
from evaluation.estimate import Estimate
from generative.data.cache import default_cache
from generative.data.image_files import png
from generative.errors import CheckpointError, DataError
from generative.hub.text_to_image import TextToImage
from generative.methods.rece.formats import TRANSFORM, Edits, edited_weights
from generative.methods.rece.live import replace_weights
from generative.training.runfolder import replace_file
from launch.erase_base import open_base
from launch.erase_images import opened_pipeline
from launch.erasing import edited_streams
from launch.ray_map import Progress, map_items, parts
from launch.sections import LaunchConfig

BEFORE, AFTER = "before", "after"
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
    folder: Path,
    prompts: Path,
    detector: str,
    launch: LaunchConfig,
    progress: Progress | None = None,
    images: Path | None = None,
) -> Measured:
    """Draw one image of each prompt with its seed and guidance, by the base model and by the edited one.

    Args:
        folder: of an erasure, with its transform.
        prompts: CSV file, see `evaluation.erasure.prompts`.
        detector: name, see `evaluation.erasure.opening`.
        launch: one worker without an address is this process.
        progress: told the parts that are done, and all.
        images: folder that all workers see, for before/CASE_0.png and after/CASE_0.png; None: they are not kept.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is drawn.
    """
    rows = read_prompts(prompts)
    cache = default_cache().parent / "erasure"
    told = open_detector(detector, cache).protocol  # and what is trained for it is, before the workers ask for it
    work = [rows[first:last] for first, last in parts(len(rows), launch.workers, MOST)]
    make = partial(_measurer, folder.resolve(), detector, cache, None if images is None else images.resolve())
    if images is not None:
        _check_names(prompts, rows)
    found = [flag for part in map_items(work, make, launch, cache / "ray_map.log", progress) for flag in part]
    protocol = f"{described(prompts, rows)}; {told}"
    before, after = (share(sum(flag[i] for flag in found), len(found), protocol) for i in (0, 1))
    return Measured(before, after, found)


def opened_erasure(folder: Path) -> tuple[TextToImage, Edits, dict[str, Tensor], dict[str, Tensor]]:
    """The base model of an erasure, its edits, and the matrices that they change, before and after.

    Raises:
        CheckpointError: no folder of an erasure, or a base that has changed.
    """
    if not (folder / TRANSFORM).is_file():
        raise CheckpointError(
            f"{folder} has no {TRANSFORM}",
            "the folder of an erasure",
            "give one that erase wrote with --format transform",
        )
    model, edits = open_base(str(folder))
    assert edits is not None
    streams = edited_streams(model, edits)
    weights = model.read([name for stream in streams for name in stream.readers])
    return model, edits, weights, edited_weights(weights, streams, edits.total())


def _check_names(prompts: Path, rows: Sequence[PromptRow]) -> None:
    names = [row.file() for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(
            f"{prompts}: two rows have the case number of {twice}",
            "a number of its own for each row, since images are named by it",
            "correct the column case_number, or leave it out",
        )


def _measurer(
    folder: Path, detector: str, cache: Path, kept: Path | None
) -> Callable[[Sequence[PromptRow]], list[tuple[bool, bool]]]:
    model, _, weights, edited = opened_erasure(folder)
    (denoiser, image), shows = opened_pipeline(model, published=True), open_detector(detector, cache)

    def measured(rows: Sequence[PromptRow]) -> list[tuple[bool, bool]]:
        found = []
        for name, state in ((BEFORE, weights), (AFTER, edited)):
            replace_weights(denoiser, state)
            images = torch.stack([image(row.prompt, row.seed, row.guidance) for row in rows])
            if kept is not None:
                (kept / name).mkdir(parents=True, exist_ok=True)
                for row, one in zip(rows, images, strict=True):
                    replace_file(kept / name / row.file(), png(one), durable=False)
            found.append(shows(images).tolist())
        return [(bool(a), bool(b)) for a, b in zip(*found, strict=True)]

    return measured
