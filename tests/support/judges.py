"""A judge of digits for tests in which nothing hangs on its verdicts."""

from __future__ import annotations

import torch

from evaluation.images.small import LabelledImages, SmallExtractor, small_extractor
from evaluation.images.small_network import SmallSettings


def blind_extractor() -> SmallExtractor:
    """A classifier that has learned next to nothing, in no time."""
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = SmallSettings(steps=2, batch_size=10, width=4, features=8)
    return small_extractor(LabelledImages(images, torch.arange(60) % 10, "noise"), settings)
