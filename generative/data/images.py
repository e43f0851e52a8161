"""From a configuration to training and validation samples of images (or of points in the plane)."""

from __future__ import annotations

from pathlib import Path

from generative.data.captioned import open_captions
from generative.data.captioned_config import CaptionedConfig
from generative.data.digits import open_digits, open_stacked_digits
from generative.data.documents import digest
from generative.data.image_config import DigitsConfig, ImageDataConfig, PointsConfig, StackedDigitsConfig
from generative.data.image_data import ImageData, check_batch
from generative.data.image_pack import ImageManifest
from generative.data.image_prepare import Progress, prepare_images
from generative.data.points import open_points
from generative.method import DataFacts

__all__ = ["ImageData", "check_batch", "open_images", "open_packed_images"]


def open_images(
    config: ImageDataConfig,
    cache: Path | None = None,
    *,
    progress: Progress | None = None,
    verify: bool = False,
) -> ImageData:
    """Training and validation samples of a configuration; images are decoded first where that has not been done.

    Pixels of 8 bits become x / 127.5 - 1; with captions samples are latents. Arguments are as for `prepare_images`.

    Raises:
        DataError: missing, unsuitable or unequal images, a missing package, a full disk.
    """
    if isinstance(config, DigitsConfig):
        return open_digits(config)
    if isinstance(config, StackedDigitsConfig):
        return open_stacked_digits(config)
    if isinstance(config, PointsConfig):
        return open_points(config)
    if isinstance(config, CaptionedConfig):
        return open_captions(config, cache=cache, progress=progress, verify=verify)
    return open_packed_images(prepare_images(config, cache, progress=progress, verify=verify), config.mirror)


def open_packed_images(folder: Path, mirror: bool = False) -> ImageData:
    """The samples of a folder that `prepare_images` made; with `mirror` every training image also mirrored.

    Raises:
        DataError: it is not complete.
    """
    manifest = ImageManifest.read(folder)
    manifest.check(folder)
    train, held_out = manifest.source_of(folder, "train", mirror), manifest.source_of(folder, "validation")
    channels, height, width = manifest.shape
    classes = None if manifest.classes is None else len(manifest.classes)
    counts = f"{train.count}{' (and mirrored)' if mirror else ''} to train on, {len(held_out)} held out"
    return ImageData(
        train=train,
        validation=held_out,
        facts=DataFacts(sample_shape=manifest.shape, classes=classes),
        description=f"{manifest.description}, {width}x{height}x{channels}, {counts}",
        fingerprint=digest([manifest.fingerprint, mirror]),
        classes=classes,
        kind="image",
        class_names=tuple(manifest.classes or ()),
    )
