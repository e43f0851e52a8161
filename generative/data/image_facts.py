"""The shape of an image source's samples, found out without reading pixels."""

from __future__ import annotations

from pathlib import Path

from generative.data.captioned_config import CaptionedConfig
from generative.data.hub import load_split
from generative.data.image_config import (
    DecodedImageConfig,
    DigitsConfig,
    FolderImageConfig,
    HubImageConfig,
    ImageDataConfig,
    PointsConfig,
    StackedDigitsConfig,
)
from generative.data.image_decode import Kind, UnsuitableError, read_kind
from generative.data.image_hub import encoded, image_column
from generative.data.image_pack import ImageManifest
from generative.data.image_pool import open_folder
from generative.data.image_prepare import prepared_images
from generative.data.points import mixture
from generative.errors import DataError, GenerativeError
from generative.method import DataFacts


def known_image_facts(config: ImageDataConfig) -> DataFacts:
    """The shape of a sample, (C, H, W) or (2,), and the classes of a source that may not be prepared yet.

    From the configuration where it says all, else from prepared data or the header of the first image.

    Raises:
        DataError: the shape is known only from images that are not on this machine, or the first is unsuitable.
    """
    if isinstance(config, PointsConfig):
        return DataFacts(sample_shape=(2,), classes=len(mixture(config.kind).centres))
    if isinstance(config, DigitsConfig | StackedDigitsConfig):
        single = isinstance(config, DigitsConfig)
        return DataFacts(sample_shape=(1 if single else 3, 8, 8), classes=10 if single else 1000)
    if isinstance(config, CaptionedConfig):
        return DataFacts()  # those of the model that encodes them
    if config.size and config.channels:
        return DataFacts(sample_shape=(config.channels, config.size, config.size))
    try:
        return DataFacts(sample_shape=_prepared_shape(config) or _shape(_first_kind(config), config))
    except GenerativeError as error:
        raise _unknown(error.problem) from error
    except UnsuitableError as error:
        raise _unknown(f"the first image cannot be used ({error})") from error


def _prepared_shape(config: DecodedImageConfig) -> tuple[int, ...] | None:
    folder = prepared_images(config)
    return None if folder is None else ImageManifest.read(folder).shape


def _shape(kind: Kind, config: DecodedImageConfig) -> tuple[int, int, int]:
    channels = config.channels or kind.channels
    return channels, config.size or kind.height, config.size or kind.width


def _first_kind(config: DecodedImageConfig) -> Kind:
    if isinstance(config, FolderImageConfig):
        return read_kind(open_folder(config)[0].paths[0])
    return _first_row(config)


def _first_row(config: HubImageConfig) -> Kind:
    if not Path(config.id).is_dir():
        raise DataError(
            f"data set {config.id!r} is not prepared on this machine",
            "a folder, or a data set of the hub that has been prepared",
            "prepare it once: generative data prepare CONFIG",
        )
    rows, names = load_split(config.id, config.config, config.split, None, streaming=True)
    if not names:
        raise DataError(
            f"data set {config.id!r}, split {config.split!r} has no rows", "one row or more", "correct data.split"
        )
    from datasets import Image

    column = image_column(rows.features, config)
    if type(rows.features[column]).__name__ == "Image":
        rows = rows.cast_column(column, Image(decode=False))
    return read_kind(encoded(next(iter(rows))[column]))


def _unknown(reason: str) -> DataError:
    return DataError(
        f"the size of the images is not known: {reason}",
        expected="data.size and data.channels, or images on this machine",
        remedy="set data.size and data.channels, or run `generative data prepare` with this configuration first",
    )
