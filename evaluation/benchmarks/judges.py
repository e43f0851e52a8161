"""Classifiers that benchmarks of image generators train for themselves, and the real images that they compare with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from evaluation.images.small import LabelledImages, SmallExtractor, small_extractor
from evaluation.images.small_network import SmallSettings
from generative.data.images import ImageData


def evenly(data: ImageData, most: int | None = None) -> Mapping[str, Tensor]:
    """Training images and their labels, evenly over all; `most`: at most so many."""
    count = len(data.train)
    kept = count if most is None else min(count, most)
    return data.train.fetch(np.linspace(0, count - 1, kept).round().astype(np.int64))


def classifier(
    data: ImageData,
    name: str,
    most: int | None = None,
    settings: SmallSettings | None = None,
    cache: Path | None = None,
) -> SmallExtractor:
    """The extractor `small`, trained on training images.

    Args:
        data: with labels.
        name: of the data, for people.
        most: images that it is trained on at most.
        settings: of its training.
        cache: folder where it is kept; None: nowhere.
    """
    found = evenly(data, most)
    return small_extractor(LabelledImages(found["sample"], found["label"], name), settings, cache)
