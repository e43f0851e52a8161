"""What an opened image source is, and samples that lie in memory or in a memory-mapped file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.files import map_file
from generative.data.order import Indices
from generative.data.sources import Source, checked
from generative.errors import DataError
from generative.method import DataFacts

if TYPE_CHECKING:
    from generative.data.captioned import Captioned

EIGHT_BITS = 127.5
"""Half the range of a pixel: x / 127.5 - 1 maps 0 .. 255 to -1 .. 1."""


@dataclass(frozen=True)
class ImageData:
    """Images, or points in the plane, that are ready to be trained and evaluated on.

    Args:
        train: "sample" float32[B, *sample_shape], and "label" int64[B] where there are classes.
        validation: held-out samples in the same form; empty where nothing is held out.
        facts: the shape of a sample, (C, H, W) or (2,).
        description: one line, for reports.
        fingerprint: identity of the training and held-out samples, the same on every machine.
        classes: labels are 0 .. classes-1; None where there are none.
        kind: images have values in [-1, 1], points are as they are.
        captioned: of latents with captions: what samples are drawn for, and what makes pictures of them; None: samples
            are pictures themselves.
        class_names: what the classes are called, in their order; (): they have numbers only.
        asked_labels: classes that samples are drawn for, in turn; (): whichever the method draws.
    """

    train: Source
    validation: Source
    facts: DataFacts
    description: str
    fingerprint: str
    classes: int | None
    kind: Literal["image", "points"]
    captioned: Captioned | None = None
    class_names: tuple[str, ...] = ()
    asked_labels: tuple[int, ...] = ()

    @property
    def has_pictures(self) -> bool:
        """Whether samples are (or decode to) images, not captions alone."""
        return self.kind == "image" and (self.captioned is None or self.captioned.with_images)

    def told(self, ids: Tensor) -> dict[str, Tensor]:
        """What a sampler is told of sample numbers int64[B] besides them: captions or asked classes, if there are."""
        if self.asked_labels:
            return {"label": torch.tensor(self.labels_of(ids))}
        return {} if self.captioned is None else self.captioned.told(ids)

    def labels_of(self, ids: Tensor) -> tuple[int, ...]:
        """The asked classes of sample numbers int64[B], dealt out in turn; () where none are asked for."""
        number = len(self.asked_labels)
        return tuple(self.asked_labels[i % number] for i in ids.tolist()) if number else ()

    def pictures(self, samples: Tensor) -> Tensor:
        """Samples float32[B, *sample_shape] as they are looked at: latents are decoded."""
        return samples if self.captioned is None else self.captioned.pixels(samples)


def check_batch(data: ImageData, batch_size: int) -> None:
    """Refuse a global batch that would hold a training sample twice.

    Raises:
        DataError: fewer training samples than `batch_size`.
    """
    if len(data.train) < batch_size:
        raise DataError(
            f"{data.description}: {len(data.train)} training samples, fewer than train.batch_size={batch_size}",
            expected=f"at least {batch_size} samples",
            remedy="lower train.batch_size, or give more data (data.max_samples, data.size, data.validation_fraction)",
        )


@dataclass(frozen=True)
class NumberFile:
    """An array [count, *shape] of `dtype` in a file."""

    path: Path
    count: int
    shape: tuple[int, ...] = ()
    dtype: str = "|u1"

    def map(self) -> NDArray[Any]:
        """Memory-map it. Raises DataError where it is missing or too short."""
        numbers = map_file(self.path, self.dtype, self.count * int(np.prod(self.shape)))
        return numbers.reshape(self.count, *self.shape)


class StoredImages:
    """Images of 8 bits in memory or in a file, with their labels. Picklable: another process maps files by itself.

    With `mirror` sample N + i is sample i flipped left to right.

    Args:
        pixels: uint8[N, C, H, W].
        labels: int64[N], or None.
        half: pixel values are 0 .. 2 half, and a sample is pixel / half - 1 (a float32 division).
        mirror: every image also mirrored.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8] | NumberFile,
        labels: NDArray[np.int64] | NumberFile | None,
        half: float = EIGHT_BITS,
        mirror: bool = False,
    ) -> None:
        self.pixels, self.labels, self.half, self.mirror = pixels, labels, half, mirror
        self.count = pixels.count if isinstance(pixels, NumberFile) else len(pixels)
        self._arrays: tuple[NDArray[np.uint8], NDArray[np.int64] | None] | None = None

    def __len__(self) -> int:
        return 2 * self.count if self.mirror else self.count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": None}

    @property
    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
        """Pixels uint8[N, C, H, W] and labels int64[N], without the mirrored ones."""
        if self._arrays is None:
            self._arrays = _array(self.pixels), None if self.labels is None else _array(self.labels)
        return self._arrays

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"sample": float32[B, C, H, W] in [-1, 1], "label": int64[B] if there are} for sample numbers int64[B]."""
        numbers = checked(indices, len(self))
        flipped, rows = np.divmod(numbers, max(self.count, 1))
        pixels, labels = self.arrays
        found = pixels[rows]
        if flipped.any():
            chosen = flipped.astype(bool)
            found[chosen] = found[chosen][..., ::-1]
        sample = torch.from_numpy(found).float().div_(self.half).sub_(1)
        return {"sample": sample} if labels is None else {"sample": sample, "label": torch.from_numpy(labels[rows])}


def _array(values: NDArray[Any] | NumberFile) -> NDArray[Any]:
    return values.map() if isinstance(values, NumberFile) else values


def array_hash(*arrays: NDArray[Any]) -> str:
    """Identity of arrays' values, in hexadecimal."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
