"""What turns images into features: one small protocol, and the extractor that needs no network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from generative.errors import DataError


@dataclass(frozen=True)
class Extracted:
    """What an extractor says of a batch.

    Args:
        features: float32[B, D].
        probabilities: class probabilities float32[B, K]; None where the extractor knows no classes.
    """

    features: Tensor
    probabilities: Tensor | None = None


class FeatureExtractor(Protocol):
    """Features of images, each computed from its image alone.

    `description` stands in the protocol of every figure; `fingerprint` (sha256, hexadecimal) is the identity of the
    network, its weights and preprocessing: figures of different fingerprints are not comparable.
    """

    @property
    def description(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, images: Tensor) -> Extracted:
        """Features of images float32[B, C, H, W] in [-1, 1]."""
        ...


def identity(*parts: Any) -> str:
    """sha256 of plain values, for `fingerprint`."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def tensor_hash(*tensors: Tensor) -> str:
    """sha256 of the shapes, types and bytes of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()


def check_images(images: Tensor, channels: int | None = None) -> Tensor:
    """The images themselves, if they are float[B, C, H, W].

    Raises:
        DataError: another type, shape or number of channels.
    """
    wanted = f"float[B, {channels or 'C'}, H, W] in [-1, 1]"
    if images.ndim != 4 or not images.is_floating_point() or channels not in (None, images.shape[1]):
        raise DataError(
            f"images are {str(images.dtype).removeprefix('torch.')}{list(images.shape)}",
            expected=wanted,
            remedy="scale pixels to [-1, 1] and put channels first",
        )
    return images


def as_rgb(images: Tensor) -> Tensor:
    """Images with three channels; gray ones are repeated.

    Raises:
        DataError: neither one nor three channels.
    """
    if check_images(images).shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    return check_images(images, 3)


@dataclass(frozen=True)
class PixelExtractor:
    """The pixels themselves: for small images and for tests."""

    description: str = "pixels"
    fingerprint: str = identity("pixels")

    def __call__(self, images: Tensor) -> Extracted:
        """Features [B, C * H * W]."""
        return Extracted(check_images(images).flatten(1))


def missing_weights(problem: str, key: str) -> DataError:
    """The error for an extractor whose weights are not there; names the way that needs none."""
    return DataError(
        problem,
        expected="weights in a local file or folder, or on a hub that can be reached",
        remedy=f"set {key} to a file or folder on this machine, or use evaluate.extractor=small, which is trained on "
        "the spot and needs no download (its figures compare with its own only)",
    )
