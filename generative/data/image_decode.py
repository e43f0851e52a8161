"""From the bytes of an image file to pixels: what is accepted, and how it becomes gray or RGB of 8 bits.

Bilevel and palette images are expanded, JPEG and WebP files are turned upright by their EXIF orientation, transparent
ones are laid over a background where one is given. Refused: more than 8 bits a channel (the depth would be lost), CMYK
(it needs a colour profile), animations, and files that are damaged.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generative.data.packages import needed

Encoded = Path | bytes
"""An image file, or its content."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class Kind:
    """What an image's header says: size in pixels (upright), 1 or 3 colour channels, whether it can be transparent."""

    width: int
    height: int
    channels: int
    transparent: bool


@dataclass(frozen=True)
class Target:
    """What images are decoded to: uint8[channels, height, width].

    Args:
        channels: 1 or 3; others are converted.
        height, width: of the result.
        resize: the largest centred square is scaled to height x width; without it images must have that size.
        filter: lanczos or bicubic, with antialiasing.
        background: white or black, under transparent images.
    """

    channels: int
    height: int
    width: int
    resize: bool = False
    filter: str = "lanczos"
    background: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


class UnsuitableError(Exception):
    """Why an image cannot be used; many of them are told in one DataError."""


def pillow(module: str = "PIL.Image", by: str = "image data", instead: str = "data.name=digits or points") -> Any:
    """A module of Pillow. Raises DataError where it is not installed."""
    return needed(module, package="pillow", extra="image", by=by, instead=instead)


def read_kind(file: Encoded) -> Kind:
    """The header of an image, without decoding it.

    Raises:
        UnsuitableError: with the reason.
    """
    with _opened(file) as image:
        width, height = image.size
        if _orientation(image) in _TURNED:
            width, height = height, width
        return Kind(width, height, _CHANNELS[image.mode], image.has_transparency_data)


def decode(file: Encoded, target: Target) -> NDArray[np.uint8]:
    """Pixels uint8[C, H, W].

    Raises:
        UnsuitableError: with the reason.
    """
    with _opened(file) as image:
        pixels = _convert(image, target)
        if target.resize:
            side = min(pixels.size)
            left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
            kind = getattr(pillow().Resampling, target.filter.upper())
            square = pixels.crop((left, top, left + side, top + side))
            pixels = square if side == target.width else square.resize((target.width, target.height), kind)
        if pixels.size != (target.width, target.height):
            raise UnsuitableError(
                f"{pixels.width}x{pixels.height} pixels, where {target.width}x{target.height} are wanted"
            )
        array = np.asarray(pixels, dtype=np.uint8)
    return array[None] if target.channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _convert(image: Any, target: Target) -> Any:
    """An upright gray or RGB image."""
    upright = pillow("PIL.ImageOps").exif_transpose(image) if _orientation(image) != 1 else image
    if image.has_transparency_data:
        if target.background is None:
            raise UnsuitableError("transparent")
        layer = upright.convert("RGBA")
        below = pillow().new("RGBA", layer.size, target.background)
        # Gray goes through RGB without loss: the luma of (g, g, g) is g.
        upright = pillow().alpha_composite(below, layer).convert("RGB")
    return upright.convert("L" if target.channels == 1 else "RGB")


@contextmanager
def _opened(file: Encoded) -> Iterator[Any]:
    """An image whose header is read and acceptable; whatever Pillow raises in the block becomes UnsuitableError."""
    library = pillow()
    library.init()  # else it knows only some of the formats
    try:
        with library.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS) as image:
            _check(image)
            yield image
    except UnsuitableError:
        raise
    except library.UnidentifiedImageError as error:
        raise UnsuitableError("empty" if _is_empty(file) else "not an image in PNG, JPEG, WebP or BMP") from error
    except Exception as error:  # Pillow's decoders raise many kinds (OSError, SyntaxError, ValueError, struct.error)
        raise UnsuitableError(next(iter(str(error).splitlines()), type(error).__name__)) from error


def _is_empty(file: Encoded) -> bool:
    return (len(file) if isinstance(file, bytes) else file.stat().st_size) == 0


def _check(image: Any) -> None:
    # Pillow reduces 16-bit colour to 8 bits by itself; only the decoder's raw mode ("RGB;16B") tells.
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in image.tile):
        raise UnsuitableError("more than 8 bits a channel")
    if image.mode not in _CHANNELS:
        raise UnsuitableError(f"colours in {image.mode}")
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise UnsuitableError(f"an animation of {image.n_frames} frames")


def _orientation(image: Any) -> int:
    """EXIF orientation 1 .. 8. Not asked of PNG files, which Pillow would have to decode to the end for it."""
    return int(image.getexif().get(_ORIENTATION, 1)) if image.format in ("JPEG", "MPO", "WEBP") else 1
