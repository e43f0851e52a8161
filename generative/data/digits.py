"""scikit-learn's digits: alone, and stacked in threes, which makes an image data set of 1,000 known modes.

The digits (Alpaydin and Kaynak, UCI "optical recognition of handwritten digits", its test part) have 8 x 8 pixels of
0 .. 16. Digit permute(k, 1797, seed=0, epoch=0) of `generative.data.order` is number k of a fixed shuffle, whatever its
class: numbers 0 .. 1399 are for training, 1400 .. 1796 are held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.drawn import Drawn
from generative.data.image_config import DigitsConfig, StackedDigitsConfig
from generative.data.image_data import ImageData, StoredImages, array_hash
from generative.data.order import Indices, permute
from generative.data.packages import needed
from generative.data.sources import checked
from generative.method import DataFacts
from generative.randomness import Streams

TRAINING = 1400
HALF = 8.0
"""Pixels are 0 .. 16, so x / 8 - 1 lies in [-1, 1]; exact in binary."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""What the classes of single digits are called."""


@dataclass(frozen=True)
class Digits:
    """Digits in the order of the fixed shuffle: pixels uint8[N, 1, 8, 8] of 0 .. 16, labels int64[N]."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@lru_cache(maxsize=1)
def load_digits() -> tuple[Digits, Digits]:
    """Training and held-out digits.

    Raises:
        DataError: scikit-learn is not installed.
    """
    library = needed(
        "sklearn.datasets",
        package="scikit-learn",
        extra="image",
        by="data.name=digits or stacked_digits",
        instead="data.name=points, folder or hub",
    )
    found = library.load_digits()
    count = len(found.target)
    shuffled = permute(np.arange(count, dtype=np.int64), count, seed=0, epoch=0)
    pixels, labels = found.images[shuffled].astype(np.uint8)[:, None], found.target[shuffled].astype(np.int64)
    return Digits(pixels[:TRAINING], labels[:TRAINING]), Digits(pixels[TRAINING:], labels[TRAINING:])


def open_digits(config: DigitsConfig) -> ImageData:
    """Single digits, [1, 8, 8]; the label is the digit."""
    train, held_out = load_digits()
    pixels, labels = train.pixels[: config.max_samples], train.labels[: config.max_samples]
    return ImageData(
        train=StoredImages(pixels, labels, HALF),
        validation=StoredImages(held_out.pixels, held_out.labels, HALF),
        facts=DataFacts(sample_shape=(1, 8, 8), classes=10),
        description=f"digits of scikit-learn, 8x8, {len(labels)} to train on, {len(held_out.labels)} held out",
        fingerprint=array_hash(pixels, labels, held_out.pixels, held_out.labels),
        classes=10,
        kind="image",
        class_names=NAMES,
    )


class StackedDigits:
    """Image i: three digits, drawn independently and uniformly from `digits` by counter i, as its channels.

    Args:
        digits: to draw from.
        size: number of images.
        stream: of the noise, so that training and held-out images draw differently.
    """

    def __init__(self, digits: Digits, size: int, stream: str) -> None:
        self.digits, self.stream = digits, stream
        self.picks = Drawn(size, self._draw)

    def __len__(self) -> int:
        return self.picks.size

    def _draw(self, numbers: Indices) -> NDArray[Any]:
        picks = Streams(0).integers(self.stream, numbers.tolist(), len(self.digits.labels), (3,))
        return picks.numpy().astype(np.int32)

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"sample": float32[B, 3, 8, 8], "label": int64[B] = 100 a + 10 b + c} for image numbers int64[B]."""
        picks = self.picks[checked(indices, len(self))]
        sample = torch.from_numpy(self.digits.pixels[picks, 0]).float().div_(HALF).sub_(1)
        return {"sample": sample, "label": torch.from_numpy(self.digits.labels[picks] @ np.array([100, 10, 1]))}


def open_stacked_digits(config: StackedDigitsConfig) -> ImageData:
    """Stacked digits, [3, 8, 8]; the label is the triple as a number 0 .. 999."""
    train, held_out = load_digits()
    sizes = np.array([config.size, config.validation_size])
    return ImageData(
        train=StackedDigits(train, config.size, "stacked_digits/train"),
        validation=StackedDigits(held_out, config.validation_size, "stacked_digits/validation"),
        facts=DataFacts(sample_shape=(3, 8, 8), classes=1000),
        description=f"stacked digits (1000 modes), 8x8x3, {config.size} to train on, {config.validation_size} held out",
        fingerprint=array_hash(sizes, train.pixels, train.labels, held_out.pixels, held_out.labels),
        classes=1000,
        kind="image",
    )
